"""Topics on a store, with a clock that a test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.memory_store import MemoryRecords, MemoryTopics

from sth_broker.store import open_store
from sth_broker.store.interface import Records, Topics
from sth_broker.store.records import SqliteRecords
from sth_broker.store.segments import SegmentTopics
from sth_broker.topics import TopicService
from sth_protocol.files import DirectoryFiles, Files

SPACE = "default"
NDJSON = "application/x-ndjson"
WAIT_SECONDS = 10.0


class Clock:
    """Seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class MemoryStore:
    records: Records
    topics: Topics

    async def close(self) -> None:
        """Nothing to let go of."""


def memory_store() -> MemoryStore:
    return MemoryStore(MemoryRecords(), MemoryTopics())


@dataclass
class DiskStore:
    """Like the embedded store, with other files or smaller segments."""

    records: SqliteRecords
    topics: SegmentTopics

    async def close(self) -> None:
        await self.topics.close()
        await self.records.close()


def disk_store(
    directory: Path,
    *,
    segment_bytes: int,
    files: Callable[[Path], Files] = DirectoryFiles,
) -> DiskStore:
    return DiskStore(
        SqliteRecords(directory / "records.sqlite"),
        SegmentTopics(directory / "topics", segment_bytes=segment_bytes, files=files),
    )


class Broker:
    """A TopicService on the embedded store of `directory`, which can be stopped and started, or
    killed: then nothing is kept that was not kept before."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._store = open_store(directory)
        self.topics = TopicService(self._store, clock=clock)

    async def restart(self, *, killed: bool = False) -> None:
        if not killed:
            await self.topics.close()
        await self._store.close()
        self._store = open_store(self._directory)
        self.topics = TopicService(self._store, clock=self._clock)

    async def close(self) -> None:
        await self.topics.close()
        await self._store.close()


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    """The body of a request."""
    for chunk in chunks:
        yield chunk


class Body:
    """A body that a test feeds: `send` a piece, `end` it or `cut` it with an error."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, data: bytes) -> None:
        self._pieces.put_nowait(data)

    def end(self) -> None:
        self._pieces.put_nowait(None)

    def cut(self, error: Exception) -> None:
        self._pieces.put_nowait(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def publish(
    topics: TopicService, name: str, *chunks: bytes, content_type: str | None = NDJSON
) -> int:
    """How many records were stored."""
    result = await topics.publish_stream(SPACE, name, content_type, body(*chunks))
    return result.records


async def read(
    topics: TopicService, name: str, size: int, *, confirm: Clock | None = None
) -> bytes:
    """The first `size` bytes that a plain reader gets. With `confirm` it stays until they count as
    confirmed; otherwise they do not."""
    data = b""
    async with asyncio.timeout(WAIT_SECONDS), topics.read_stream(SPACE, name) as stream:
        while len(data) < size:
            data += await anext(stream)
        if confirm is not None:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            confirm.now += 1.5
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    return data
