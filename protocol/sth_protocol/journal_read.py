"""Reading a journal at a place that it has located.

Apart from the journal itself, so that a thread may read a segment while another appends: a place
is a value, and a segment only grows behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sth_protocol.batch import Chunk, Gap, StoredBatch
from sth_protocol.files import Files
from sth_protocol.journal_segment import (
    INDEX_EVERY,
    MARK_BYTES,
    Entry,
    Extent,
    SegmentWalk,
    read_mark,
)

_LARGEST_WINDOW = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where to read: an extent, and the offset wanted in it. If `indexed` is False the extent is
    all of a segment that nobody has looked at: `index_of` it and `install` that first."""

    base: int
    extent: Extent
    wanted: int
    indexed: bool


def read_place(files: Files, place: Place, max_bytes: int) -> Chunk:
    """What stands at a place, `max_bytes` at most but for a single batch."""
    window = min(max(max_bytes, 0) + INDEX_EVERY, _LARGEST_WINDOW)
    walk = SegmentWalk(files, place.extent, base=place.base, window=window)
    found: list[StoredBatch] = []
    size, following = 0, place.wanted
    for each in walk:
        walk.last_window = True
        if isinstance(each, Gap):
            if each.end <= place.wanted:
                continue
            return Chunk(tuple(found), each.end, Gap(max(each.start, place.wanted), each.end))
        header = each.batch.header
        if header.next_offset <= place.wanted:
            walk.last_window = False
            continue
        if found and size + header.size > max_bytes:
            break
        found.append(each.batch)
        size += header.size
        following = header.next_offset
        if size >= max_bytes:
            break
    return Chunk(tuple(found), following)


def offset_at(files: Files, extents: Sequence[tuple[int, Extent]], time_ms: int) -> int:
    """The offset of the first batch stored at `time_ms` or later; the end if there is none."""
    candidates = list(extents)
    while len(candidates) > 1 and _begun_before(files, candidates[1], time_ms):
        del candidates[0]
    for base, extent in candidates:
        for each in SegmentWalk(files, extent, base=base):
            if isinstance(each, Entry) and each.batch.header.time_ms >= time_ms:
                return each.batch.header.base_offset
    return extents[-1][1].end if extents else 0


def _begun_before(files: Files, segment: tuple[int, Extent], time_ms: int) -> bool:
    """Whether all that stands before this segment is older than `time_ms`."""
    base, extent = segment
    mark = read_mark(files.read(extent.name, 0, MARK_BYTES), 0, position=0, base=base)
    return mark is not None and mark.time_ms < time_ms
