"""The append-only log of batches that the broker keeps for a Topic.

Segments are named by their base offset. `append` writes, `sync` makes durable; only what is durable
is read. The caller decides when to sync and gives the time, and answers nobody before `sync` has
returned.

A disk that refuses closes the journal to appends: what was not synced before is taken to be lost,
even if it can still be read, since a page whose write-back failed stays in the cache as if it were
clean. `recover` starts a new segment where the last good sync ended. For the same reason an
unmarked tail found by `open` is written anew before it counts. A segment ends where the next one
begins, so that whatever stands beyond is ignored.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from sth_protocol import batch
from sth_protocol.batch import Buffer, Chunk
from sth_protocol.errors import OffsetBeyondEnd, OffsetTrimmed, StorageFailed
from sth_protocol.files import File, Files
from sth_protocol.journal_read import Place, read_place
from sth_protocol.journal_segment import (
    MARK_BYTES,
    Entry,
    Extent,
    Mark,
    SegmentWalk,
    SparseIndex,
    base_of,
    index_of,
    last_mark,
    pack_mark,
    segment_name,
)

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024 * 1024
_TEMPORARY = "new.tmp"
_NO_END = 2**63


@dataclass(slots=True)
class _Segment:
    """`size`: bytes that count, all of them synced but for the last mark. What `open` found gets
    its index when it is first read; until then the index knows only what was appended since."""

    base: int
    name: str
    size: int
    index: SparseIndex = field(default_factory=SparseIndex)
    indexed: bool = True


class Journal:
    """One log in one directory, written by one thread at a time. Damage found is reported by reads
    as a gap. Made by `open`.

    `guard` is held, for moments and never while the disk works, when what a reader sees changes:
    with a lock there, other threads may use `bounds`, `locate`, `install` and `extents`.
    """

    def __init__(
        self, files: Files, *, segment_bytes: int, guard: AbstractContextManager[object]
    ) -> None:
        self._files = files
        self._guard = guard
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._file: File | None = None
        self._failed = False
        self._must_rotate = False
        self._time_ms = 0
        self._end = 0
        self._written_end = 0
        self._written_size = 0
        self._unsynced: list[tuple[int, int]] = []
        self._tail: list[bytes] = []

    @classmethod
    def open(
        cls,
        files: Files,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        guard: AbstractContextManager[object] | None = None,
    ) -> Journal:
        """The journal that the directory holds, or an empty one. StorageFailed if the disk refuses;
        what is there is not harmed by that. `guard` must be reusable."""
        journal = cls(files, segment_bytes=segment_bytes, guard=guard or nullcontext())
        try:
            journal._open()
        except OSError as error:
            raise _storage_failed("cannot be opened", error) from error
        return journal

    def _open(self) -> None:
        for name in self._files.names():
            base = base_of(name)
            if base is not None:
                size = self._files.size(name)
                self._segments.append(_Segment(base, name, size, indexed=False))
        if self._segments:
            self._recover_tail()
        else:
            self._must_rotate = True

    def _recover_tail(self) -> None:
        """Find the end: the last mark, and what stands whole behind it, which is written anew."""
        last = self._segments[-1]
        mark = last_mark(self._files, last.name, last.base, last.size)
        synced, self._end, self._time_ms = (
            (mark.position + MARK_BYTES, mark.offset, mark.time_ms) if mark else (0, last.base, 0)
        )
        found, last.size = last.size, synced
        self._written_end, self._written_size = self._end, synced
        if mark is not None and found == synced:
            return
        self._must_rotate = True
        after = Extent(last.name, synced, found, self._end, _NO_END)
        walk = SegmentWalk(self._files, after, base=last.base, whole=False)
        self._tail = [bytes(each.batch.data) for each in walk if isinstance(each, Entry)]
        logger.info(
            "%s: %d bytes after the last sync, of which %d batches are whole",
            last.name,
            found - synced,
            len(self._tail),
        )
        if self._tail:
            self._time_ms = max(self._time_ms, batch.read_header(self._tail[-1]).time_ms)
            self._try_to_keep_tail()

    def _try_to_keep_tail(self) -> None:
        """A disk that is full must not keep anybody from reading the rest."""
        try:
            self._start_segment()
        except OSError as error:
            logger.warning("the tail of a log cannot be written anew: %s", error)
            self._fail()

    # -- what there is

    @property
    def start(self) -> int:
        """The oldest offset that is kept."""
        return self._segments[0].base if self._segments else self._end

    @property
    def end(self) -> int:
        """The offset after the last durable record."""
        return self._end

    @property
    def written_end(self) -> int:
        """The offset that the next record appended gets."""
        return self._written_end

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(segment.size for segment in self._segments)

    def bounds(self) -> tuple[int, int, int]:
        """Start, end and size, as they are at one moment."""
        with self._guard:
            return self.start, self.end, self.size

    @property
    def failed(self) -> bool:
        """Whether the disk refused; appends are refused until `recover`."""
        return self._failed

    # -- writing

    def append(self, batches: Sequence[Buffer], *, time_ms: int) -> int:
        """Write encoded batches, stamped with offset and time; the offset of the first. They are
        not durable until `sync` returns. StorageFailed closes the journal."""
        self._refuse_if_failed()
        try:
            return self._append(batches, max(time_ms, self._time_ms))
        except OSError as error:
            self._fail()
            raise _storage_failed("refused a write", error) from error

    def _append(self, batches: Sequence[Buffer], time_ms: int) -> int:
        if self._must_rotate or self._written_size >= self._segment_bytes:
            if self._written_end > self._end:
                self._sync()
            self._start_segment()
        if self._file is None:
            self._file = self._files.open(self._segments[-1].name)
        base = offset = self._written_end
        position = self._written_size
        parts: list[Buffer] = []
        starts: list[tuple[int, int]] = []
        for each in batches:
            header = batch.read_header(each)
            parts += batch.stamped(each, offset, time_ms)
            starts.append((offset, position))
            offset += header.count
            position += header.size
        self._file.append(parts)
        self._unsynced += starts
        self._time_ms = time_ms
        self._written_end = offset
        self._written_size = position
        return base

    def sync(self) -> int:
        """Make durable what was written; the new end. After StorageFailed none of it counts."""
        self._refuse_if_failed()
        try:
            self._sync()
        except OSError as error:
            self._fail()
            raise _storage_failed("refused to sync", error) from error
        return self._end

    def _sync(self) -> None:
        if self._written_end == self._end:
            return
        assert self._file is not None
        self._file.sync()
        segment = self._segments[-1]
        with self._guard:
            for offset, position in self._unsynced:
                segment.index.add(offset, position)
            self._end = self._written_end
            segment.size = self._written_size
        self._unsynced.clear()
        mark = Mark(self._written_size, self._end, self._time_ms)
        try:
            self._file.append([pack_mark(mark)])
        except OSError as error:
            # What was synced stays so; only this file can no longer be written to.
            logger.warning("%s: no room for a mark: %s", segment.name, error)
            self._must_rotate = True
            return
        self._written_size += MARK_BYTES

    def _start_segment(self) -> None:
        """A new segment at the durable end. What waits in `_tail` is its first content and becomes
        durable by it. It takes its name only when it is synced, since it hides what the segment
        before it has from there on."""
        base, name = self._end, segment_name(self._end)
        fresh, content = self._first_content(base)
        if _TEMPORARY in self._files.names():
            self._files.remove(_TEMPORARY)
        file = self._files.open(_TEMPORARY)
        try:
            file.append(content)
            file.sync()
            self._files.rename(_TEMPORARY, name)
            self._files.sync_dir()
        except OSError:
            file.close()
            raise
        self._close_file()
        self._file = file
        self._written_end = base + sum(batch.read_header(each).count for each in self._tail)
        self._written_size = fresh.size
        self._tail = []
        with self._guard:
            if self._segments and self._segments[-1].base == base:
                self._segments.pop()
            self._segments.append(fresh)
            self._end = self._written_end
        self._must_rotate = False

    def _first_content(self, base: int) -> tuple[_Segment, list[Buffer]]:
        segment = _Segment(base, segment_name(base), MARK_BYTES)
        content: list[Buffer] = [pack_mark(Mark(0, base, self._time_ms))]
        if not self._tail:
            return segment, content
        offset = base
        for each in self._tail:
            header = batch.read_header(each)
            segment.index.add(offset, segment.size)
            offset += header.count
            segment.size += header.size
        mark = Mark(segment.size, offset, self._time_ms)
        segment.size += MARK_BYTES
        return segment, [*content, *self._tail, pack_mark(mark)]

    def recover(self) -> None:
        """Open again for appends after a failure, in a new segment where the last good sync ended.
        StorageFailed if the disk still refuses."""
        if not self._failed:
            return
        try:
            self._start_segment()
        except OSError as error:
            raise _storage_failed("still refuses", error) from error
        self._failed = False

    def _fail(self) -> None:
        self._failed = True
        self._unsynced.clear()
        self._written_end = self._end
        self._close_file()

    def _refuse_if_failed(self) -> None:
        if self._failed:
            raise StorageFailed(
                "the log is closed after a failed write",
                hint="it opens again when the disk takes writes; see the broker's log",
            )

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                logger.warning("closing a segment: %s", error)

    def rest(self) -> None:
        """Give back the descriptor until the next append. Nothing unsynced may wait."""
        if self._written_end == self._end:
            self._close_file()

    def close(self) -> None:
        """Give back the descriptor for good. Unsynced batches stay unacknowledged."""
        self._close_file()
        self._failed = True

    # -- reading

    def locate(self, offset: int) -> Place | None:
        """Where to read `offset`; None at the end. OffsetTrimmed, OffsetBeyondEnd."""
        with self._guard:
            return self._locate(offset)

    def _locate(self, offset: int) -> Place | None:
        if offset < self.start:
            raise OffsetTrimmed(
                f"offset {offset} is no longer kept; the oldest is {self.start}",
                hint="read from the oldest, or from a later offset",
            )
        if offset > self._end:
            raise OffsetBeyondEnd(f"offset {offset} is beyond the end, {self._end}")
        if offset == self._end:
            return None
        number = self._segment_of(offset)
        segment, end = self._segments[number], self._end_of(number)
        known = segment.index.find(offset)
        at, position = known if known is not None else (segment.base, 0)
        extent = Extent(segment.name, position, segment.size, at, end)
        return Place(segment.base, extent, offset, known is not None or segment.indexed)

    def install(self, place: Place, index: SparseIndex) -> None:
        """Keep the index made of an extent that `locate` gave."""
        with self._guard:
            for segment in self._segments:
                if segment.base == place.base and not segment.indexed:
                    index.extend(segment.index)
                    segment.index, segment.indexed = index, True

    def read(self, offset: int, max_bytes: int) -> Chunk:
        """Batches from the one that holds `offset` on, at least one, else `max_bytes` at most; none
        at the end. Ends with a segment. OffsetTrimmed, OffsetBeyondEnd."""
        place = self.locate(offset)
        if place is None:
            return Chunk((), offset)
        if not place.indexed:
            self.install(place, index_of(self._files, place.extent, base=place.base))
            place = self.locate(offset)
            assert place is not None
        return read_place(self._files, place, max_bytes)

    def extents(self) -> list[tuple[int, Extent]]:
        """Every segment as base and extent: for `offset_at`."""
        with self._guard:
            return [
                (each.base, Extent(each.name, 0, each.size, each.base, self._end_of(number)))
                for number, each in enumerate(self._segments)
            ]

    def _segment_of(self, offset: int) -> int:
        low, high = 0, len(self._segments)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._segments[middle].base <= offset else (low, middle)
        return low

    def _end_of(self, number: int) -> int:
        following = number + 1
        return self._segments[following].base if following < len(self._segments) else self._end

    # -- retention

    def trim(self, before: int, *, down_to: int = 0) -> int:
        """Remove whole segments that end at or before `before`, the oldest first, until at most
        `down_to` bytes are left; the new start. StorageFailed."""
        removed = False
        try:
            while self.size > down_to and self._drop_oldest(before):
                removed = True
            if removed:
                self._files.sync_dir()
        except OSError as error:
            raise _storage_failed("refused to remove a segment", error) from error
        return self.start

    def _drop_oldest(self, before: int) -> bool:
        if not self._segments or self._end_of(0) > before:
            return False
        if len(self._segments) == 1:
            # The last one holds the end, so an empty one takes its place first.
            if self._failed or self._written_end > self._end or self.start == self._end:
                return False
            self._start_segment()
        # First out of sight, so that no reader is sent to a file that is gone.
        with self._guard:
            oldest = self._segments.pop(0)
        self._files.remove(oldest.name)
        return True


def _storage_failed(what: str, error: OSError) -> StorageFailed:
    hint = "free space on the disk" if error.errno == errno.ENOSPC else "see the broker's log"
    return StorageFailed(f"the disk {what}: {error.strerror or error}", hint=hint)
