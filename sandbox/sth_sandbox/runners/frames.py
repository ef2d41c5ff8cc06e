"""The frames of the runner sockets, for whoever writes or reads them in Python.

Every number comes from wire.json beside this module, which the Node runner reads as well: one
definition for both languages and for the agent. docs/reference/wire.md section 4 says what the
frames mean. Nothing here touches a socket.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_WIRE: dict[str, Any] = json.loads((Path(__file__).parent / "wire.json").read_bytes())

HEADER_BYTES: int = _WIRE["header_bytes"]
MAX_PAYLOAD: int = _WIRE["max_payload"]

DATA: int = _WIRE["types"]["DATA"]
TYPE: int = _WIRE["types"]["TYPE"]
END: int = _WIRE["types"]["END"]
MESSAGE: int = _WIRE["types"]["MESSAGE"]
RESYNC: int = _WIRE["types"]["RESYNC"]
FRAME_TYPES: frozenset[int] = frozenset(_WIRE["types"].values())

RECORDS: int = _WIRE["flags"]["RECORDS"]
FEED_END: int = _WIRE["flags"]["FEED_END"]

INPUT_DESCRIPTOR: int = _WIRE["descriptors"]["input"]
OUTPUT_DESCRIPTOR: int = _WIRE["descriptors"]["output"]
CONTROL_DESCRIPTOR: int = _WIRE["descriptors"]["control"]
LOG_DESCRIPTOR: int = _WIRE["descriptors"]["log"]

EXIT_COMPLETED: int = _WIRE["exit_codes"]["completed"]
EXIT_BAD_ENTRYPOINT: int = _WIRE["exit_codes"]["bad_entrypoint"]
EXIT_FAILED_ON_START: int = _WIRE["exit_codes"]["failed_on_start"]
EXIT_FAILED: int = _WIRE["exit_codes"]["failed"]
EXIT_KILLED: int = _WIRE["exit_codes"]["killed"]
EXIT_STOPPED: int = _WIRE["exit_codes"]["stopped"]

OCTET: str = _WIRE["content_types"]["octet"]
TEXT: str = _WIRE["content_types"]["text"]
NDJSON: str = _WIRE["content_types"]["ndjson"]
TEXT_NDJSON: str = _WIRE["content_types"]["text_ndjson"]

# Room above it, so that what follows a frame can be told in 64 bits, too.
_MAX_POSITION = 2**63

_LAYOUT = struct.Struct("<IBBxxI4xQQ")
assert _LAYOUT.size == HEADER_BYTES


class FrameError(ValueError):
    """Bytes that are no frame: the writer is broken or hostile, and the stream is unusable."""


class Header(NamedTuple):
    """What stands before a payload. A tuple, because one is made for every frame.

    `length`: bytes of payload; `count`: records in it; `offset`: absolute position of its first
    byte in its stream; `number`: absolute number of its first record.
    """

    length: int
    type: int
    flags: int
    count: int  # type: ignore[assignment]  # the name on the wire; tuple.count is not used
    offset: int
    number: int


class Frame(NamedTuple):
    """A header with its payload."""

    header: Header
    payload: bytes


def pack_header(
    frame_type: int,
    length: int,
    *,
    flags: int = 0,
    count: int = 0,
    offset: int = 0,
    number: int = 0,
) -> bytes:
    """The 32 bytes before a payload of `length` bytes, which the caller sends after them."""
    if length > MAX_PAYLOAD:
        raise FrameError(f"a payload is at most {MAX_PAYLOAD} bytes, this one has {length}")
    return _LAYOUT.pack(length, frame_type, flags, count, offset, number)


def pack_frame(
    frame_type: int,
    payload: bytes | memoryview = b"",
    *,
    flags: int = 0,
    count: int = 0,
    offset: int = 0,
    number: int = 0,
) -> bytes:
    """A whole frame as bytes."""
    header = pack_header(
        frame_type, len(payload), flags=flags, count=count, offset=offset, number=number
    )
    return header + payload


def pack_message(message: dict[str, Any]) -> bytes:
    """A MESSAGE frame of the control socket."""
    return pack_frame(MESSAGE, json.dumps(message, separators=(",", ":")).encode())


def unpack_header(buffer: bytes | bytearray | memoryview, position: int = 0) -> Header:
    """The header at `position`, where HEADER_BYTES must be there. FrameError if it is none."""
    header = Header._make(_LAYOUT.unpack_from(buffer, position))
    if header.type not in FRAME_TYPES:
        raise FrameError(f"{header.type} is no type of frame")
    if header.length > MAX_PAYLOAD:
        raise FrameError(f"a payload is at most {MAX_PAYLOAD} bytes, {header.length} announced")
    if header.offset > _MAX_POSITION or header.number > _MAX_POSITION:
        raise FrameError("the frame's place in its stream is out of bounds")
    return header


def walk(buffer: bytes | bytearray | memoryview, position: int = 0) -> Iterator[tuple[Header, int]]:
    """Every whole frame in `buffer` from `position` on: its header and where its payload begins.

    Copies no payload, for readers that peek: the payload is
    `buffer[start:start + header.length]`, and the next frame begins right after it.
    """
    size = len(buffer)
    while size - position >= HEADER_BYTES:
        header = unpack_header(buffer, position)
        start = position + HEADER_BYTES
        position = start + header.length
        if position > size:
            return
        yield header, start


class FrameReader:
    """Bytes in, whole frames out, for ordinary reading."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes. FrameError leaves the reader unusable; what stands
        whole before the broken one is given first, and the error is raised by the next call."""
        self._buffer += data
        frames: list[Frame] = []
        end = 0
        with memoryview(self._buffer) as view:
            try:
                for header, start in walk(view):
                    end = start + header.length
                    frames.append(Frame(header, bytes(view[start:end])))
            except FrameError:
                if not frames:
                    raise
        del self._buffer[:end]
        return frames
