"""The few things that a journal asks of a directory, so that a test can be a treacherous disk.

Everything raises OSError as the system does. A file is only ever appended to.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sth_protocol.batch import Buffer

_PARTS_AT_ONCE = 512


class File(Protocol):
    """A file open for appending."""

    def append(self, parts: Sequence[Buffer]) -> None:
        """All of them, one after the other. After an error any part of them may be there."""
        ...

    def sync(self) -> None:
        """Returns when everything appended is on the disk. After an error nothing is known about
        what was not synced before, and a second try proves nothing."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """One directory without folders."""

    def open(self, name: str) -> File:
        """Created if it is not there."""
        ...

    def read(self, name: str, position: int, length: int) -> bytes:
        """Fewer bytes than asked for only at the end of the file."""
        ...

    def size(self, name: str) -> int: ...

    def names(self) -> list[str]:
        """Sorted."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Takes the place of a file that is there."""
        ...

    def remove(self, name: str) -> None: ...

    def sync_dir(self) -> None:
        """Returns when every creation, renaming and removal is on the disk."""
        ...


class DirectoryFile:
    """A file of the system, open for appending."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, parts: Sequence[Buffer]) -> None:
        for start in range(0, len(parts), _PARTS_AT_ONCE):
            self._append_some(parts[start : start + _PARTS_AT_ONCE])

    def _append_some(self, parts: Sequence[Buffer]) -> None:
        wanted = sum(map(len, parts))
        written = os.writev(self._descriptor, parts)
        if written == wanted:
            return
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class DirectoryFiles:
    """A directory of the system, which must exist. Reading opens the file anew each time, so that
    removing one is safe while another thread reads it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str) -> DirectoryFile:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return DirectoryFile(os.open(self._directory / name, flags, 0o600))

    def read(self, name: str, position: int, length: int) -> bytes:
        descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, length, position)
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), position + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        return os.stat(self._directory / name).st_size

    def names(self) -> list[str]:
        return sorted(os.listdir(self._directory))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._directory / old, self._directory / new)

    def remove(self, name: str) -> None:
        os.unlink(self._directory / name)

    def sync_dir(self) -> None:
        sync_directory(self._directory)


def sync_directory(directory: Path) -> None:
    """Returns when every creation, renaming and removal in `directory` is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
