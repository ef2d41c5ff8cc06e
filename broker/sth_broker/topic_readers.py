"""Plain readers of a Topic: over HTTP, and over a channel for an Instance.

Each reads the log at its own pace, a small piece at a time, so that a slow one holds up nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from sth_broker.channel import Channel
from sth_broker.store.interface import Chunk
from sth_broker.topic_log import TopicLog
from sth_protocol import batch

READ_BYTES = 256 * 1024


class PlainStream:
    """The records of a Topic as bytes, from where plain readers stand on, without end: an async
    iterator. Asking for the next piece says that the last one was handed on. `close` it."""

    def __init__(self, log: TopicLog, *, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._reader = log.cursor.join()
        self._offset = self._given = self._reader.start
        log.readers_moved()

    @property
    def content_type(self) -> str:
        return self._log.info.content_type

    def __aiter__(self) -> "PlainStream":
        return self

    async def __anext__(self) -> bytes:
        """At least one byte, at most about READ_BYTES. OffsetTrimmed, NotFound, StorageFailed."""
        self._hand_on()
        data = b""
        while not data:
            chunk = await self._log.read(self._offset, READ_BYTES)
            data = _payload(chunk, self._offset)
            self._offset = chunk.next_offset
        return data

    def close(self) -> None:
        """The reader is gone. What it was handed in the last second may be given again."""
        now = self._clock()
        self._log.cursor.settle_reader(self._reader, now=now)
        self._log.cursor.leave(self._reader, now=now)
        self._log.readers_moved()

    def _hand_on(self) -> None:
        if self._offset > self._given:
            self._given = self._offset
            self._log.cursor.hand(self._reader, self._given, now=self._clock())
            self._log.readers_moved()


def _payload(chunk: Chunk, offset: int) -> bytes:
    return b"".join(
        batch.payload_after(each.data, each.header, offset - each.header.base_offset)
        for each in chunk.batches
    )


class Subscription:
    """The stored batches of a Topic on a channel; what the agent has consumed is confirmed."""

    def __init__(self, log: TopicLog, channel: Channel, *, clock: Callable[[], float]) -> None:
        self._log = log
        self._channel = channel
        self._clock = clock
        self._reader = log.cursor.join()
        self._sent = 0
        # Bytes of the channel up to the end of each batch, and the offset after it.
        self._unconfirmed: deque[tuple[int, int]] = deque()

    async def serve(self) -> None:
        """Until the agent ends the channel. OffsetTrimmed, NotFound, StorageFailed."""
        self._log.settlers.add(self._settle)
        try:
            content_type = self._log.info.content_type
            self._channel.accept({"offset": self._reader.start, "content_type": content_type})
            await first_of(self._send(), self._until_the_agent_ends())
        finally:
            self._settle()
            self._log.settlers.discard(self._settle)
            self._log.cursor.leave(self._reader, now=self._clock())
            self._log.readers_moved()

    async def _send(self) -> None:
        offset = self._reader.start
        while True:
            chunk = await self._log.read(offset, READ_BYTES)
            for each in chunk.batches:
                await self._channel.write(each.data)
                self._sent += len(each.data)
                offset = each.header.next_offset
                self._log.cursor.hand(self._reader, offset, now=self._clock(), acknowledged=True)
                self._unconfirmed.append((self._sent, offset))
                self._log.readers_moved()
            offset = chunk.next_offset

    async def _until_the_agent_ends(self) -> None:
        while data := await self._channel.read():
            self._channel.consume(len(data))

    def _settle(self) -> None:
        consumed = self._channel.consumed_by_peer
        while self._unconfirmed and self._unconfirmed[0][0] <= consumed:
            self._log.cursor.confirm(self._reader, self._unconfirmed.popleft()[1])


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, and end the others; the error of the first that has one."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
