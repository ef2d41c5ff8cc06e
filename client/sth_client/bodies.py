"""What may be sent as a stream, cut into pieces for the wire."""

import io
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
    """The bytes of `source`, in order, none of them empty. TypeError for text, at once where it can
    be told."""
    if isinstance(source, str | io.TextIOBase):
        raise TypeError("bytes are needed, not text; open files in binary mode")
    if isinstance(source, bytes | bytearray | memoryview):
        return _slices(memoryview(source).cast("B"))
    return _read(source) if isinstance(source, Readable) else _checked(source)


def pieces_async(source: AsyncSource) -> AsyncIterator[Octets]:
    """As `pieces`; a file is read in a thread, so that a slow one does not hold the event loop."""
    if isinstance(source, AsyncIterable):
        return _checked_async(source)
    return _in_thread(pieces(source)) if isinstance(source, Readable) else _as_async(pieces(source))


def _slices(view: memoryview) -> Iterator[Octets]:
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _read(file: Readable) -> Iterator[Octets]:
    # What is there now, where the file can tell: a line that was typed must not wait for 64 KiB.
    read = getattr(file, "read1", None) or file.read
    while data := read(PIECE_BYTES):
        yield _octets(data)


def _checked(items: Iterable[Octets]) -> Iterator[Octets]:
    for item in items:
        if data := _octets(item):
            yield data


async def _checked_async(items: AsyncIterable[Octets]) -> AsyncIterator[Octets]:
    async for item in items:
        if data := _octets(item):
            yield data


async def _in_thread(following: Iterator[Octets]) -> AsyncIterator[Octets]:
    # Imported here: the blocking client and `sth` do without asyncio.
    import asyncio

    while data := await asyncio.to_thread(next, following, b""):
        yield data


async def _as_async(items: Iterator[Octets]) -> AsyncIterator[Octets]:
    for data in items:
        yield data


def _octets(data: object) -> Octets:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes are needed, not {type(data).__name__}; open files in binary mode")
    # The wire counts bytes, a view of numbers counts those.
    return data.cast("B") if isinstance(data, memoryview) else data
