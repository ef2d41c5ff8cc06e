"""The frames of the link: their types, their shapes as a table, their bytes.

A message is one or more msgpack arrays `[type, channel, arg, payload]`. `decode` refuses everything
that does not have the shape of the table, so that the multiplexer looks only at what frames mean.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from sth_protocol import codec
from sth_protocol.errors import BadFrame, BadRequest, FrameTooLarge, TooLarge

MAX_MESSAGE: Final = codec.MAX_MESSAGE
MAX_PAYLOAD: Final = 256 * 1024
MAX_MAP: Final = 64 * 1024
DATA_CUT: Final = 64 * 1024
MAX_INTEGER: Final = 2**63 - 1
MAX_TEXT: Final = 4096


class FrameType(IntEnum):
    """The first element of a frame."""

    HELLO = 1
    WELCOME = 2
    OPEN = 3
    ACCEPT = 4
    DATA = 5
    MORE = 6
    FIN = 7
    RESET = 8
    CREDIT = 9
    CONTROL = 10
    ACK = 11
    PING = 12
    PONG = 13
    CLOSE = 14
    DONE = 15


Frame = tuple[FrameType, int, int, Any]
Payload = Literal["map", "bytes", "integer", "nil"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a type of frame looks. `on_channel`: its channel is not 0; `numbered`: it is kept by its
    sender until it is acknowledged."""

    payload: Payload
    on_channel: bool = False
    numbered: bool = False
    has_arg: bool = True


SHAPES: Final[dict[FrameType, Shape]] = {
    FrameType.HELLO: Shape("map", has_arg=False),
    FrameType.WELCOME: Shape("map", has_arg=False),
    FrameType.OPEN: Shape("map", on_channel=True, numbered=True),
    FrameType.ACCEPT: Shape("map", on_channel=True, numbered=True),
    FrameType.DATA: Shape("bytes", on_channel=True, numbered=True),
    FrameType.MORE: Shape("bytes", on_channel=True, numbered=True),
    FrameType.FIN: Shape("nil", on_channel=True, numbered=True),
    FrameType.RESET: Shape("map", on_channel=True, numbered=True),
    FrameType.CREDIT: Shape("integer", on_channel=True),
    FrameType.CONTROL: Shape("map", numbered=True, has_arg=False),
    FrameType.ACK: Shape("nil"),
    FrameType.PING: Shape("nil"),
    FrameType.PONG: Shape("nil"),
    FrameType.CLOSE: Shape("map", has_arg=False),
    FrameType.DONE: Shape("nil", on_channel=True, numbered=True),
}

_PAYLOAD_TYPES: Final[dict[Payload, type]] = {
    "map": bytes,
    "bytes": bytes,
    "integer": int,
    "nil": type(None),
}

NUMBERED: Final = frozenset(kind for kind, shape in SHAPES.items() if shape.numbered)

# Type, type of its payload, most bytes in it, on a channel, has an arg: the table once more, in the
# form that costs least for every frame.
_CHECKS: Final[dict[int, tuple[FrameType, type, int, bool, bool]]] = {
    kind.value: (
        kind,
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
        number, channel, arg, payload = value
        if type(number) is not int or type(channel) is not int or type(arg) is not int:
            raise BadFrame("type, channel and arg of a frame are integers")
        check = _CHECKS.get(number)
        if check is None:
            raise BadFrame(f"frames of type {number} are not known")
        kind, payload_type, most, on_channel, has_arg = check
        found = type(payload)
        if found is not payload_type:
            raise BadFrame(f"{kind.name} with a payload of {found.__name__}")
        if found is bytes:
            if len(payload) > most:
                raise FrameTooLarge(f"{kind.name} with {len(payload)} bytes; at most {most}")
        elif found is int and not 0 <= payload <= MAX_INTEGER:
            raise BadFrame(f"{kind.name} with the integer {payload}")
        if not 0 <= channel <= MAX_INTEGER or (channel != 0) is not on_channel:
            raise BadFrame(f"{kind.name} on channel {channel}")
        if not 0 <= arg <= MAX_INTEGER or (arg and not has_arg):
            raise BadFrame(f"{kind.name} with arg {arg}")
        yield kind, channel, arg, payload


def decode_map(payload: bytes) -> dict[str, Any]:
    """The map in the payload of a frame; BadFrame if it is something else."""
    value = codec.unpack(payload)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadFrame("the payload is not a map with words for keys")
    return value


def encode(kind: FrameType, channel: int = 0, arg: int = 0, payload: int | None = None) -> bytes:
    """A frame whose payload is nil or an integer."""
    return codec.pack([kind, channel, arg, payload])


def encode_map(kind: FrameType, channel: int, arg: int, values: Mapping[str, object]) -> bytes:
    """A frame whose payload is a map. TooLarge above 64 KiB, BadRequest for what cannot be said in
    msgpack or would be refused by the peer: a user's values must never cost us the link."""
    try:
        payload = codec.pack(dict(values))
        if len(payload) > MAX_MAP:
            raise TooLarge(
                f"{kind.name} would carry {len(payload)} bytes; at most {MAX_MAP} may be sent",
                hint="send it in pages, or as data of a channel",
            )
        decode_map(payload)
    except BadFrame as error:
        raise BadRequest(f"cannot be sent to the other side: {error.message}") from None
    return codec.pack([kind, channel, arg, payload])


def clean(text: str, most: int = MAX_TEXT) -> str:
    """Text for a RESET or a CLOSE, which must never fail for its words: cut after `most`
    characters, and what is no Unicode (of a file name, say) replaced."""
    return text[:most].encode(errors="replace").decode()


def data_head(kind: FrameType, channel: int) -> bytes:
    """What all DATA (or MORE) frames of a channel begin with."""
    return b"\x94" + codec.pack(kind) + codec.pack(channel)


def encode_data(head: bytes, offset: int, data: bytes | memoryview) -> bytes:
    """A DATA or MORE frame; the only place where data that is sent is copied."""
    return head + _DATA_TAIL.pack(0xCF, offset, 0xC6, len(data)) + data
