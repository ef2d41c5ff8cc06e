"""A directory in memory with a disk below it that may be cut from power or refuse a sync.

What was written but not synced may be lost, kept, or torn anywhere when the power goes. A file's
pages that a failed sync gave up stay readable, as in Linux, until the power goes.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sth_protocol.batch import Buffer

# Given the number of possibilities, which one: `lambda n: 0`, a random generator, hypothesis.
Choose = Callable[[int], int]


@dataclass
class _Inode:
    """`content`: what a read gives; `synced`: what survives; `given_up`: ranges of bytes that a
    failed sync has marked clean."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    given_up: list[tuple[int, int]] = field(default_factory=list)

    def sync(self) -> None:
        start = len(self.synced)
        self.synced += self.content[start:]
        for low, high in self.given_up:
            self.synced[low:high] = bytes(high - low)

    def give_up(self) -> None:
        self.given_up.append((len(self.synced), len(self.content)))

    def after_power_cut(self, choose: Choose) -> None:
        unsynced = bytes(self.content[len(self.synced) :])
        tail = bytearray(unsynced[: choose(len(unsynced) + 1)])
        if tail and choose(3) == 0:
            # Pages reach the disk in any order: some in the middle may be missing.
            start = choose(len(tail))
            stop = start + choose(len(tail) - start + 1)
            tail[start:stop] = bytes(stop - start)
        start = len(self.synced)
        survived = self.synced + tail
        for low, high in self.given_up:
            high = min(high, len(survived))
            if high > low >= start:
                survived[low:high] = bytes(high - low)
        self.content, self.synced, self.given_up = bytearray(survived), bytearray(survived), []


class SimulatedFile:
    def __init__(self, files: "SimulatedFiles", inode: _Inode) -> None:
        self._files = files
        self._inode = inode
        self._closed = False

    def append(self, parts: Sequence[Buffer]) -> None:
        assert not self._closed
        data = b"".join(parts)
        room = self._files.room
        if room is not None and len(data) > room:
            self._inode.content += data[:room]
            self._files.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        if room is not None:
            self._files.room = room - len(data)
        self._inode.content += data

    def sync(self) -> None:
        assert not self._closed
        if self._files.failing_syncs > 0:
            self._files.failing_syncs -= 1
            self._inode.give_up()
            raise OSError(errno.EIO, "Input/output error")
        self._inode.sync()

    def close(self) -> None:
        self._closed = True


class SimulatedFiles:
    """`failing_syncs`: how many of the next syncs fail with EIO; `room`: bytes until ENOSPC."""

    def __init__(self) -> None:
        self.failing_syncs = 0
        self.room: int | None = None
        self._names: dict[str, _Inode] = {}
        self._synced_names: dict[str, _Inode] = {}
        self._unsynced: list[Callable[[dict[str, _Inode]], object]] = []

    def open(self, name: str) -> SimulatedFile:
        if name not in self._names:
            inode = _Inode()
            self._do(lambda names: names.update({name: inode}))
        return SimulatedFile(self, self._names[name])

    def read(self, name: str, position: int, length: int) -> bytes:
        return bytes(self._inode(name).content[position : position + length])

    def size(self, name: str) -> int:
        return len(self._inode(name).content)

    def names(self) -> list[str]:
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        self._inode(old)
        self._do(lambda names: names.update({new: names.pop(old)}))

    def remove(self, name: str) -> None:
        self._inode(name)
        self._do(lambda names: names.pop(name, None))

    def sync_dir(self) -> None:
        self._synced_names = dict(self._names)
        self._unsynced.clear()

    def power_cut(self, choose: Choose) -> None:
        """Everything not synced may be gone, in whole or in part; `choose` decides."""
        names = dict(self._synced_names)
        for operation in self._unsynced[: choose(len(self._unsynced) + 1)]:
            operation(names)
        self._names, self._synced_names, self._unsynced = names, dict(names), []
        for inode in {id(each): each for each in names.values()}.values():
            inode.after_power_cut(choose)
        self.failing_syncs, self.room = 0, None

    def content(self, name: str) -> bytearray:
        """The bytes of a file, to be damaged in place."""
        return self._inode(name).content

    def cut(self, name: str, length: int) -> None:
        """Leave the first `length` bytes of a file, as a torn write does."""
        del self._inode(name).content[length:]
        del self._inode(name).synced[length:]

    def _do(self, operation: Callable[[dict[str, _Inode]], object]) -> None:
        operation(self._names)
        self._unsynced.append(operation)

    def _inode(self, name: str) -> _Inode:
        try:
            return self._names[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", name) from None
