"""Record batches: the unit that travels and is stored, formed once and never cut again.

The layout is section 2 of docs/reference/wire.md. A batch is handled as the bytes that it is; only
its header is ever decoded. Base offset and broker time stand outside the checksum, so that the log
stamps them without touching the rest.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sth_protocol.errors import BadFrame, Corrupt

Buffer = bytes | bytearray | memoryview

MAGIC = 0x42485453
MAGIC_BYTES = b"STHB"
VERSION = 1
HEADER_BYTES = 64
MAX_PAYLOAD = 1024 * 1024
# The lengths index may take what a message of a channel has beyond the payload.
MAX_BATCH = MAX_PAYLOAD + 64 * 1024
PRODUCER_BYTES = 16
MAX_SEQUENCE = 2**63 - 1

FLAG_LENGTHS = 1
FLAG_CHUNK = 2
_KNOWN_FLAGS = FLAG_LENGTHS | FLAG_CHUNK

_CHECKED = struct.Struct("<IBBHII16sQI")  # bytes 0..44, which the checksum covers
_HEADER = struct.Struct("<IBBHII16sQIIQQ")
_STAMP = struct.Struct("<QQ")
_STAMP_AT = 48
_CRC_AT = 44
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Header:
    """The decoded header. `length`: bytes of payload and index; `base_offset` and `time_ms` are 0
    until the batch is stored."""

    flags: int
    count: int
    length: int
    producer: bytes
    base_sequence: int
    epoch: int
    crc: int
    base_offset: int
    time_ms: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return HEADER_BYTES + self.length

    @property
    def payload_bytes(self) -> int:
        """Bytes of the records, without the index."""
        index = self.count * _LENGTH_BYTES if self.flags & FLAG_LENGTHS else 0
        return self.length - index

    @property
    def next_sequence(self) -> int:
        return self.base_sequence + self.count

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.count


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as a log holds it, checked: `header` knows offset and time, `data` is all of it."""

    header: Header
    data: memoryview


@dataclass(frozen=True, slots=True)
class Gap:
    """Records from `start` up to, not including, `end` that a log can no longer give."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What reading a log gave: whole batches, the first of which may begin before the offset asked
    for; `next_offset`: where to read on. `gap`: damage that follows them and that `next_offset` has
    passed."""

    batches: tuple[StoredBatch, ...]
    next_offset: int
    gap: Gap | None = None


def encode(
    payload: Buffer,
    *,
    producer: bytes,
    epoch: int,
    base_sequence: int,
    count: int,
    flags: int = 0,
    lengths: Sequence[int] = (),
) -> bytes:
    """A whole batch, not stored yet. `lengths`: bytes of each record, for FLAG_LENGTHS, which
    they set. BadFrame if the parts do not fit together; records are not counted here."""
    if len(payload) > MAX_PAYLOAD:
        raise BadFrame(f"a batch of {len(payload)} bytes of payload; at most {MAX_PAYLOAD} fit")
    if len(producer) != PRODUCER_BYTES or count < 1 or (lengths and len(lengths) != count):
        raise BadFrame(
            f"a batch of {count} records and {len(lengths)} lengths,"
            f" by a producer of {len(producer)} bytes"
        )
    index = struct.pack(f"<{len(lengths)}I", *lengths)
    if lengths:
        flags |= FLAG_LENGTHS
    length = len(payload) + len(index)
    try:
        checked = _CHECKED.pack(
            MAGIC, VERSION, flags, 0, count, length, producer, base_sequence, epoch
        )
    except struct.error as error:
        raise BadFrame(f"a number in the batch's header is out of range: {error}") from None
    crc = zlib.crc32(index, zlib.crc32(payload, zlib.crc32(checked)))
    stamp = struct.pack("<IQQ", crc, 0, 0)
    return b"".join((checked, stamp, payload, index))


def read_header(data: Buffer, position: int = 0) -> Header:
    """The header at `position`. BadFrame if it is cut off or none of ours; the checksum is not
    looked at."""
    if len(data) - position < HEADER_BYTES:
        raise BadFrame("a batch is cut in its header")
    fields = _HEADER.unpack_from(data, position)
    magic, version, flags, reserved, count, length = fields[:6]
    if magic != MAGIC or version != VERSION or reserved or flags & ~_KNOWN_FLAGS:
        raise BadFrame("not a batch, or one of an unknown version")
    header = Header(flags, count, length, *fields[6:])
    if count < 1 or not 0 <= header.payload_bytes <= MAX_PAYLOAD or header.size > MAX_BATCH:
        raise BadFrame(f"a batch of {count} records in {length} bytes is out of bounds")
    if header.next_sequence > MAX_SEQUENCE:
        raise BadFrame("the batch's sequence is out of bounds")
    return header


def read_checked(data: Buffer, position: int = 0) -> Header:
    """The header of the whole batch at `position`; BadFrame if it is cut off or none of ours,
    Corrupt if its checksum does not match."""
    header = read_header(data, position)
    end = position + header.size
    if len(data) < end:
        raise BadFrame(f"a batch of {header.size} bytes is cut at {len(data) - position}")
    view = memoryview(data)
    crc = zlib.crc32(view[position : position + _CRC_AT])
    if zlib.crc32(view[position + HEADER_BYTES : end], crc) != header.crc:
        raise Corrupt(f"a batch of {header.count} records does not match its checksum")
    return header


def verify(data: bytes) -> Header:
    """The header of `data`, which must be exactly one batch whose checksum and count hold: what a
    peer's batch has to pass. BadFrame or Corrupt otherwise."""
    header = read_checked(data)
    if len(data) != header.size:
        raise BadFrame(f"{len(data)} bytes where a batch of {header.size} belongs")
    if header.flags & FLAG_LENGTHS:
        if sum(_lengths(data, header)) != header.payload_bytes:
            raise BadFrame("the lengths of the batch's records do not add up to its payload")
    elif header.flags & FLAG_CHUNK:
        if header.count != 1:
            raise BadFrame(f"{header.count} chunks in a batch without their lengths")
    else:
        _check_lines(data, header)
    return header


def _check_lines(data: bytes, header: Header) -> None:
    if not data.endswith(b"\n"):
        raise BadFrame("the last line of the batch has no end")
    lines = data.count(b"\n", HEADER_BYTES)
    if lines != header.count:
        raise BadFrame(f"the batch says {header.count} records and holds {lines} lines")


def stamp(base_offset: int, time_ms: int) -> bytes:
    """The 16 bytes of a header that only the log knows."""
    return _STAMP.pack(base_offset, time_ms)


def stamped(data: Buffer, base_offset: int, time_ms: int) -> tuple[bytes, memoryview]:
    """The batch as it is stored, in two parts to be written one after the other: its header with
    offset and time, and the rest, which is not copied."""
    view = memoryview(data)
    return bytes(view[:_STAMP_AT]) + stamp(base_offset, time_ms), view[HEADER_BYTES:]


def split(data: Buffer) -> Iterator[tuple[Header, memoryview]]:
    """The whole batches that stand one after the other in `data`. BadFrame where one is cut off or
    none of ours; checksums are not looked at."""
    view = memoryview(data)
    position = 0
    while position < len(view):
        header = read_header(view, position)
        if position + header.size > len(view):
            raise BadFrame(f"a batch of {header.size} bytes is cut at {len(view) - position}")
        yield header, view[position : position + header.size]
        position += header.size


def records_in(payload: bytes) -> int:
    """How many records a payload of lines holds."""
    return payload.count(b"\n")


def payload_of(data: Buffer, header: Header) -> memoryview:
    """The records of a batch, without header and index; not copied."""
    return memoryview(data)[HEADER_BYTES : HEADER_BYTES + header.payload_bytes]


def payload_after(data: Buffer, header: Header, skip: int) -> memoryview:
    """The records of a batch without the first `skip`: for a reader at an offset inside it."""
    payload = payload_of(data, header)
    if skip <= 0:
        return payload
    if skip >= header.count:
        return payload[:0]
    if header.flags & FLAG_LENGTHS:
        return payload[sum(_lengths(data, header)[:skip]) :]
    rest = bytes(payload).split(b"\n", skip)[-1]
    return payload[len(payload) - len(rest) :]


def _lengths(data: Buffer, header: Header) -> tuple[int, ...]:
    return struct.unpack_from(f"<{header.count}I", data, HEADER_BYTES + header.payload_bytes)
