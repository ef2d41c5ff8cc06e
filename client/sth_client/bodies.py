"""What may be sent as a stream, cut into pieces for the wire."""

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

PIECE_BYTES = 64 * 1024


@runtime_checkable
class Readable(Protocol):
    """A binary file, as far as it is needed here."""

    def read(self, size: int, /) -> bytes | None: ...


Octets: TypeAlias = bytes | bytearray | memoryview
Source: TypeAlias = Octets | Readable | Iterable[Octets]
AsyncSource: TypeAlias = Source | AsyncIterable[Octets]
# A directory or a .tar.gz by its path, or the bytes of one.
Package: TypeAlias = str | os.PathLike[str] | Octets | Readable


def pieces(source: Source) -> Iterator[Octets]:
    """The bytes of `source`, in order, none of them empty. TypeError for text."""
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]
    elif isinstance(source, Readable):
        # What is there now, where the file can tell: a prompt line must not wait for 64 KiB.
        read = getattr(source, "read1", None) or source.read
        while data := read(PIECE_BYTES):
            yield _octets(data)
    else:
        _refuse_text(source)
        for item in source:
            if octets := _octets(item):
                yield octets


async def pieces_async(source: AsyncSource) -> AsyncIterator[Octets]:
    """As `pieces`; a file is read in a thread, so that a slow one does not hold the event loop."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            if data := _octets(item):
                yield data
    elif isinstance(source, Readable):
        # Imported here: the blocking client and `sth` do without asyncio.
        import asyncio

        following = pieces(source)
        while data := await asyncio.to_thread(next, following, b""):
            yield data
    else:
        for data in pieces(source):
            yield data


def _octets(data: object) -> Octets:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes are needed, not {type(data).__name__}; open files in binary mode")
    # The wire counts bytes, a view of numbers counts those.
    return data.cast("B") if isinstance(data, memoryview) else data


def _refuse_text(source: object) -> None:
    if isinstance(source, str):
        raise TypeError("bytes are needed, not str; encode it first")
