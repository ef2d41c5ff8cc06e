"""One segment of a journal: batches one after the other, with marks between them.

A mark says: everything before me was synced. The first thing in a segment is one, and one follows
every sync. So after a crash what stands before the last mark must be whole, and damage there is
reported as a gap; what stands after it was never acknowledged, and is taken only as far as it is
whole. Without marks a torn tail and a flipped bit would look the same.
"""

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from sth_protocol import batch
from sth_protocol.batch import Gap, StoredBatch
from sth_protocol.errors import BadFrame, Corrupt
from sth_protocol.files import Files

MARK_MAGIC = b"STM1"
MARK_BYTES = 32
INDEX_EVERY = 16 * 1024
SUFFIX = ".log"
_WINDOW = 1024 * 1024
_MARK = struct.Struct("<4sIQQQ")
_MARK_FIELDS = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything before `position` in the file was synced; the next record has `offset`; no batch
    before it has a later time."""

    position: int
    offset: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a segment: from `position`, where the batch or mark at `offset` starts, up to the
    bytes before `limit` and the records before `end`."""

    name: str
    position: int
    limit: int
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch and where it starts in the file."""

    position: int
    batch: StoredBatch


def segment_name(base: int) -> str:
    return f"{base:020d}{SUFFIX}"


def base_of(name: str) -> int | None:
    """The base offset that a segment's name says; None for another file's name."""
    digits = name.removesuffix(SUFFIX)
    return int(digits) if len(digits) == 20 and digits.isdecimal() and digits != name else None


def pack_mark(mark: Mark) -> bytes:
    fields = _MARK_FIELDS.pack(mark.position, mark.offset, mark.time_ms)
    return MARK_MAGIC + zlib.crc32(fields).to_bytes(4, "little") + fields


def read_mark(data: batch.Buffer, start: int, *, position: int, base: int) -> Mark | None:
    """The mark at `start` of `data`, which is `position` of the file; None if there is none. A
    record takes at least a byte, which bounds what a mark within a payload could pretend."""
    if len(data) - start < MARK_BYTES:
        return None
    magic, crc, at, offset, time_ms = _MARK.unpack_from(data, start)
    view = memoryview(data)[start + 8 : start + MARK_BYTES]
    sound = magic == MARK_MAGIC and at == position and zlib.crc32(view) == crc
    if not sound or not base <= offset <= base + position:
        return None
    return Mark(at, offset, time_ms)


def last_mark(files: Files, name: str, base: int, size: int) -> Mark | None:
    """The last mark among the first `size` bytes of a segment."""
    upper = size
    while upper >= MARK_BYTES:
        start = max(0, upper - _WINDOW)
        data = files.read(name, start, upper - start)
        found = data.rfind(MARK_MAGIC)
        while found >= 0:
            mark = read_mark(data, found, position=start + found, base=base)
            if mark is not None:
                return mark
            found = data.rfind(MARK_MAGIC, 0, found + len(MARK_MAGIC) - 1)
        if start == 0:
            return None
        upper = start + MARK_BYTES - 1
    return None


class SparseIndex:
    """Where some batches start: one every INDEX_EVERY bytes or more."""

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._positions = array("Q")

    def add(self, offset: int, position: int) -> None:
        if not self._positions or position - self._positions[-1] >= INDEX_EVERY:
            self._offsets.append(offset)
            self._positions.append(position)

    def find(self, offset: int) -> tuple[int, int] | None:
        """Offset and position of the last known batch that starts at or before `offset`."""
        found = bisect_right(self._offsets, offset) - 1
        return (self._offsets[found], self._positions[found]) if found >= 0 else None

    def extend(self, later: "SparseIndex") -> None:
        """Take over what `later` knows of the positions after these."""
        for offset, position in zip(later._offsets, later._positions, strict=True):
            if not self._positions or position > self._positions[-1]:
                self._offsets.append(offset)
                self._positions.append(position)


class _WindowEnds(Exception):
    pass


class SegmentWalk:
    """Walks an extent from batch to batch; what does not fit is a Gap, never wrong bytes.

    After the walk `position` and `offset` tell where it ended. With `whole` False it ends at the
    first thing that does not fit: the way to find how far an unmarked tail is sound. Once
    `last_window` is set it ends with what has been read from the file already.
    """

    def __init__(
        self, files: Files, extent: Extent, *, base: int, window: int = _WINDOW, whole: bool = True
    ) -> None:
        self._files = files
        self._extent = extent
        self._base = base
        self._window = window
        self._whole = whole
        self._data = b""
        self._start = extent.position
        self.position = extent.position
        self.offset = extent.offset
        self.last_window = False

    def __iter__(self) -> Iterator[Entry | Gap]:
        try:
            yield from self._entries()
        except _WindowEnds:
            return

    def _entries(self) -> Iterator[Entry | Gap]:
        while self.offset < self._extent.end and self.position < self._extent.limit:
            entry = self._batch_at(self.position)
            if entry is not None and entry.batch.header.base_offset == self.offset:
                self.position += entry.batch.header.size
                self.offset = entry.batch.header.next_offset
                yield entry
                continue
            mark = self._mark_at(self.position)
            if mark is not None and mark.offset == self.offset:
                self.position += MARK_BYTES
                continue
            if not self._whole:
                return
            yield from self._pass_damage()
        if self._whole and self.offset < self._extent.end:
            gap = Gap(self.offset, self._extent.end)
            self.offset = gap.end
            yield gap

    def _pass_damage(self) -> Iterator[Gap]:
        """Go on at the next batch or mark that is sound and not older than what was expected."""
        lost = self.offset
        self.position, self.offset = self._next_sound(self.position + 1)
        if self.offset > lost:
            yield Gap(lost, self.offset)

    def _next_sound(self, position: int) -> tuple[int, int]:
        end = self._extent.end
        while position < self._extent.limit:
            at = self._load(position, len(MARK_MAGIC))
            if len(self._data) - at < len(MARK_MAGIC):
                break
            found = [
                where
                for magic in (batch.MAGIC_BYTES, MARK_MAGIC)
                if (where := self._data.find(magic, at)) >= 0
            ]
            if not found:
                # A magic may stand across the edge of the window.
                loaded = self._start + len(self._data)
                position = max(position + 1, loaded - len(MARK_MAGIC) + 1)
                continue
            position = self._start + min(found)
            entry, mark = self._batch_at(position), self._mark_at(position)
            if entry is not None and self.offset <= entry.batch.header.base_offset < end:
                return position, entry.batch.header.base_offset
            if mark is not None and self.offset <= mark.offset <= end:
                return position, mark.offset
            position += 1
        return self._extent.limit, end

    def _batch_at(self, position: int) -> Entry | None:
        try:
            start = self._load(position, batch.HEADER_BYTES)
            header = batch.read_header(self._data, start)
            if position + header.size > self._extent.limit:
                return None
            start = self._load(position, header.size)
            header = batch.read_checked(self._data, start)
        except (BadFrame, Corrupt):
            return None
        view = memoryview(self._data)[start : start + header.size]
        return Entry(position, StoredBatch(header, view))

    def _mark_at(self, position: int) -> Mark | None:
        start = self._load(position, MARK_BYTES)
        return read_mark(self._data, start, position=position, base=self._base)

    def _load(self, position: int, length: int) -> int:
        """Have the `length` bytes at `position` in the window, less only at the limit; the index of
        the first in the window."""
        wanted = min(length, self._extent.limit - position)
        held = self._start <= position and position + wanted <= self._start + len(self._data)
        if not held:
            if self.last_window:
                raise _WindowEnds
            take = min(max(length, self._window), self._extent.limit - position)
            self._data = self._files.read(self._extent.name, position, take)
            self._start = position
        return position - self._start


def index_of(files: Files, extent: Extent, *, base: int) -> SparseIndex:
    """The index of an extent; reads all of it."""
    index = SparseIndex()
    for each in SegmentWalk(files, extent, base=base):
        if isinstance(each, Entry):
            index.add(each.batch.header.base_offset, each.position)
    return index
