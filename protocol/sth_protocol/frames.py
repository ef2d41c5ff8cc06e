"""The frames of the link: their types, their shapes as a table, their bytes.

A message is one or more msgpack arrays `[type, channel, arg, payload]`. `decode` refuses everything
that does not have the shape of the table, so that the multiplexer looks only at what frames mean.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sth_protocol import codec
from sth_protocol.errors import BadFrame, FrameTooLarge, TooLarge

MAX_MESSAGE: Final = codec.MAX_MESSAGE
MAX_PAYLOAD: Final = 256 * 1024
MAX_MAP: Final = 64 * 1024
DATA_CUT: Final = 64 * 1024
MAX_INTEGER: Final = 2**63 - 1
MAX_TEXT: Final = 4096

HELLO: Final = 1
WELCOME: Final = 2
OPEN: Final = 3
ACCEPT: Final = 4
DATA: Final = 5
MORE: Final = 6
FIN: Final = 7
RESET: Final = 8
CREDIT: Final = 9
CONTROL: Final = 10
ACK: Final = 11
PING: Final = 12
PONG: Final = 13
CLOSE: Final = 14
DONE: Final = 15

Frame = tuple[int, int, int, Any]
Payload = Literal["map", "bytes", "integer", "nil"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a type of frame looks. `on_channel`: its channel is not 0; `numbered`: it is kept by its
    sender until it is acknowledged."""

    name: str
    payload: Payload
    on_channel: bool = False
    numbered: bool = False
    has_arg: bool = True


SHAPES: Final[dict[int, Shape]] = {
    HELLO: Shape("HELLO", "map", has_arg=False),
    WELCOME: Shape("WELCOME", "map", has_arg=False),
    OPEN: Shape("OPEN", "map", on_channel=True, numbered=True),
    ACCEPT: Shape("ACCEPT", "map", on_channel=True, numbered=True),
    DATA: Shape("DATA", "bytes", on_channel=True, numbered=True),
    MORE: Shape("MORE", "bytes", on_channel=True, numbered=True),
    FIN: Shape("FIN", "nil", on_channel=True, numbered=True),
    RESET: Shape("RESET", "map", on_channel=True, numbered=True),
    CREDIT: Shape("CREDIT", "integer", on_channel=True),
    CONTROL: Shape("CONTROL", "map", numbered=True, has_arg=False),
    ACK: Shape("ACK", "nil"),
    PING: Shape("PING", "nil"),
    PONG: Shape("PONG", "nil"),
    CLOSE: Shape("CLOSE", "map", has_arg=False),
    DONE: Shape("DONE", "nil", on_channel=True, numbered=True),
}

_PAYLOAD_TYPES: Final[dict[Payload, type]] = {
    "map": bytes,
    "bytes": bytes,
    "integer": int,
    "nil": type(None),
}

# kind -> (type of the payload, most bytes in it, on a channel, has an arg): the table once more, in
# the form that costs least for every frame.
_CHECKS: Final = {
    kind: (
        _PAYLOAD_TYPES[shape.payload],
        MAX_MAP if shape.payload == "map" else MAX_PAYLOAD,
        shape.on_channel,
        shape.has_arg,
    )
    for kind, shape in SHAPES.items()
}

# A msgpack uint64 (0xcf) for the offset and a bin32 (0xc6) for the payload: longer than the
# shortest form by a few bytes, and one call instead of four.
_DATA_TAIL: Final = struct.Struct(">BQBI")


def decode(message: bytes) -> Iterator[Frame]:
    """The frames of a message, each of a known type and of the shape of its type.

    BadFrame or FrameTooLarge, at the first frame that is not.
    """
    for value in codec.unpack_all(message):
        if type(value) is not list or len(value) != 4:
            raise BadFrame("a frame is an array of four")
        kind, channel, arg, payload = value
        if type(kind) is not int or type(channel) is not int or type(arg) is not int:
            raise BadFrame("type, channel and arg of a frame are integers")
        check = _CHECKS.get(kind)
        if check is None:
            raise BadFrame(f"frames of type {kind} are not known")
        payload_type, most, on_channel, has_arg = check
        found = type(payload)
        if found is not payload_type:
            raise BadFrame(f"{SHAPES[kind].name} with a payload of {found.__name__}")
        if payload_type is bytes:
            if len(payload) > most:
                name = SHAPES[kind].name
                raise FrameTooLarge(f"{name} with {len(payload)} bytes; at most {most} are read")
        elif payload_type is int and not 0 <= payload <= MAX_INTEGER:
            raise BadFrame(f"{SHAPES[kind].name} with the integer {payload}")
        if not 0 <= channel <= MAX_INTEGER or (channel != 0) is not on_channel:
            raise BadFrame(f"{SHAPES[kind].name} on channel {channel}")
        if not 0 <= arg <= MAX_INTEGER or (arg and not has_arg):
            raise BadFrame(f"{SHAPES[kind].name} with arg {arg}")
        yield kind, channel, arg, payload


def decode_map(payload: bytes) -> dict[str, Any]:
    """The map in the payload of a frame; BadFrame if it is something else."""
    value = codec.unpack(payload)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadFrame("the payload is not a map with words for keys")
    return value


def encode(kind: int, channel: int = 0, arg: int = 0, payload: int | None = None) -> bytes:
    """A frame whose payload is nil or an integer."""
    return codec.pack([kind, channel, arg, payload])


def encode_map(kind: int, channel: int, arg: int, values: Mapping[str, object]) -> bytes:
    """A frame whose payload is a map; TooLarge above 64 KiB, BadFrame for what msgpack lacks."""
    payload = codec.pack(dict(values))
    if len(payload) > MAX_MAP:
        raise TooLarge(
            f"{SHAPES[kind].name} would carry {len(payload)} bytes; at most {MAX_MAP} may be sent",
            hint="send it in pages, or as data of a channel",
        )
    return codec.pack([kind, channel, arg, payload])


def clean(text: str, most: int = MAX_TEXT) -> str:
    """Text for a RESET or a CLOSE, which must never fail for its words: cut after `most`
    characters, and what is no Unicode (of a file name, say) replaced."""
    return text[:most].encode(errors="replace").decode()


def data_head(kind: int, channel: int) -> bytes:
    """What all DATA (or MORE) frames of a channel begin with."""
    return b"\x94" + codec.pack(kind) + codec.pack(channel)


def encode_data(head: bytes, offset: int, data: bytes | memoryview) -> bytes:
    """A DATA or MORE frame; the only place where data that is sent is copied."""
    return head + _DATA_TAIL.pack(0xCF, offset, 0xC6, len(data)) + data
