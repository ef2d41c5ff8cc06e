"""The only user of msgpack: every length, depth and size that a peer may send is limited here."""

from collections.abc import Iterator
from typing import Any

import msgpack

from sth_protocol.errors import BadFrame, FrameTooLarge

MAX_MESSAGE = 320 * 1024
MAX_ITEMS = 16 * 1024
MAX_DEPTH = 32


def pack(value: object) -> bytes:
    """msgpack bytes of plain values; BadFrame for what msgpack cannot say."""
    try:
        return bytes(msgpack.packb(value, use_bin_type=True))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadFrame(f"cannot be encoded: {error}") from None


def unpack(data: bytes) -> Any:
    """One value; BadFrame if it is malformed, too deep, or followed by anything."""
    values = list(unpack_all(data))
    if len(values) != 1:
        raise BadFrame(f"{len(values)} values where one belongs")
    _check_depth(values[0])
    return values[0]


def _check_depth(value: object) -> None:
    """BadFrame for lists and maps more than MAX_DEPTH deep: others walk them recursively."""
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _containers(each)]
        if not level:
            return
    raise BadFrame(f"values inside each other more than {MAX_DEPTH} deep")


def _containers(values: list[object] | dict[object, object]) -> list[Any]:
    inside = values.values() if isinstance(values, dict) else values
    return [each for each in inside if isinstance(each, (list, dict))]


def unpack_all(data: bytes) -> Iterator[Any]:
    """The values that stand one after the other in `data`, which must end with a whole one."""
    if len(data) > MAX_MESSAGE:
        raise FrameTooLarge(f"a message of {len(data)} bytes; at most {MAX_MESSAGE} are read")
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=MAX_MESSAGE,
        max_bin_len=MAX_MESSAGE,
        max_str_len=MAX_MESSAGE,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
        max_ext_len=0,
    )
    unpacker.feed(data)
    # The place after the last whole value: the unpacker itself moves on into one that is cut.
    whole = 0
    try:
        for value in unpacker:
            whole = unpacker.tell()
            yield value
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise BadFrame(f"not msgpack: {type(error).__name__} {error}"[:200]) from None
    if whole != len(data):
        raise BadFrame("cut in the middle of a value")
