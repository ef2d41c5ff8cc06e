"""What a Sequence may return, sorted: shared by the runner and by `sth.testing`."""

from collections.abc import AsyncIterable, Iterable
from typing import Any

_WHOLE = (str, bytes, bytearray, memoryview, dict)


def as_items(value: Any) -> AsyncIterable[Any] | Iterable[Any]:
    """The items of a result: of None none, of a plain value that one, of a stream its own.

    A str, bytes or dict is one item although it can be iterated.
    """
    if value is None:
        return ()
    if isinstance(value, AsyncIterable):
        return value
    if isinstance(value, Iterable) and not isinstance(value, _WHOLE):
        return value
    return (value,)
