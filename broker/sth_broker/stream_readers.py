"""Several readers of one stream of an Instance, out of one channel.

A Hub keeps what was not consumed for the next reader, so there is one channel to a stream and what
counts as consumed is what its slowest reader has. Whichever reader has nothing left reads the
channel for all; there is no task and no queue as long as there is one reader.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from sth_broker.channel import Channel
from sth_broker.hub_link import HubLink
from sth_protocol.errors import SthError, StreamFailed

logger = logging.getLogger(__name__)

Key = tuple[str, str, str]


class Reader:
    """One reader's place in a stream. `position` counts the bytes that its user has taken."""

    def __init__(self, source: "Source", position: int, on_stall: Callable[[], None]) -> None:
        self._source = source
        self.position = position
        self.queue: deque[bytes] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.on_stall = on_stall
        # What the watch saw last, and when.
        self.seen_position = position
        self.seen_at = 0.0

    async def read(self) -> bytes:
        """What comes next, at least one byte; b"" when the stream has ended. An SthError if it
        broke off, which is not an end."""
        source = self._source
        while not self.queue:
            if source.failure is not None:
                raise source.failure
            if source.ended:
                return b""
            if not source.reading:
                return await source.read_for(self)
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None
        return self.queue.popleft()

    def consumed(self, count: int) -> None:
        """The reader's user has taken so many bytes more."""
        self.position += count
        self._source.settle()

    def close(self) -> None:
        """Leave. What nobody has taken stays at the Hub."""
        self._source.leave(self)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Source:
    """A channel and those who read it."""

    def __init__(
        self, channel: Channel, *, stall: float, on_over: Callable[["Source"], None]
    ) -> None:
        # Bytes read of the channel.
        self.front = 0
        self._channel = channel
        self._stall = stall
        self._on_over = on_over
        self._readers: list[Reader] = []
        self._settled = 0
        self._watch_handle: asyncio.TimerHandle | None = None
        self.reading = False
        self.ended = False
        self.failure: SthError | None = None

    def join(self, on_stall: Callable[[], None]) -> Reader:
        """A reader of everything that comes from now on."""
        reader = Reader(self, self.front, on_stall)
        self._readers.append(reader)
        if len(self._readers) > 1:
            self._begin_watch(reader)
        return reader

    async def read_for(self, leader: Reader) -> bytes:
        """Read the channel once, for all."""
        self.reading = True
        try:
            data = await self._channel.read()
        except SthError as error:
            self.fail(error)
            raise
        except BaseException:
            # The leader was cancelled: another one takes over.
            self.reading = False
            self._wake_all()
            raise
        self.reading = False
        if not data:
            self.ended = True
            self._wake_all()
            return b""
        self.front += len(data)
        if len(self._readers) > 1:
            for reader in self._readers:
                if reader is not leader:
                    reader.queue.append(data)
                    reader.wake()
        return data

    def settle(self) -> None:
        """Report as consumed what every reader has taken."""
        readers = self._readers
        if len(readers) == 1:
            lowest = readers[0].position
        else:
            lowest = min((each.position for each in readers), default=self._settled)
        if lowest > self._settled:
            self._channel.consume(lowest - self._settled)
            self._settled = lowest

    def leave(self, reader: Reader) -> None:
        """Take a reader out; the last one closes the channel."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if self._readers:
            self.settle()
            return
        self._over()
        if self.ended and self._settled == self.front:
            self._channel.finish()
        elif self.failure is None:
            self._channel.reset(StreamFailed.code, "its reader has left")

    def fail(self, error: SthError) -> None:
        """End all readers with an error."""
        self.failure = error
        self.reading = False
        self._over()
        self._wake_all()

    def _over(self) -> None:
        if self._watch_handle is not None:
            self._watch_handle.cancel()
            self._watch_handle = None
        self._on_over(self)

    def _wake_all(self) -> None:
        for reader in self._readers:
            reader.wake()

    def _begin_watch(self, newcomer: Reader) -> None:
        now = asyncio.get_running_loop().time()
        newcomer.seen_at = now
        if self._watch_handle is None:
            for reader in self._readers:
                reader.seen_position, reader.seen_at = reader.position, now
            self._watch()

    def _watch(self) -> None:
        """Close readers that stand still while others are ahead. Positions are compared from time
        to time, so that nothing is spent on it for each chunk."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        highest = max((each.position for each in self._readers), default=0)
        for reader in list(self._readers):
            if reader.position in (self.front, highest) or reader.position != reader.seen_position:
                reader.seen_position, reader.seen_at = reader.position, now
            elif now - reader.seen_at >= self._stall:
                logger.info("a reader took nothing for %.0f s while another moved", self._stall)
                self.leave(reader)
                reader.on_stall()
        again = len(self._readers) > 1
        self._watch_handle = loop.call_later(self._stall / 6, self._watch) if again else None


class StreamReaders:
    """The sources of all streams that are being read."""

    def __init__(self, *, stall: float) -> None:
        self._stall = stall
        self._sources: dict[Key, Source] = {}
        # While one reader opens a channel, others of the same stream wait for it.
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def join(self, link: HubLink, key: Key, *, on_stall: Callable[[], None]) -> Reader:
        """A reader of the stream `key` = (Space, Instance, stream). The Hub's error if it has no
        such stream. `on_stall` is called when the reader is closed for standing still."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            source = self._sources.get(key)
            if source is None:
                _, instance, stream = key
                channel = await link.open(
                    {"kind": "instance", "instance": instance, "stream": stream}
                )
                source = Source(channel, stall=self._stall, on_over=partial(self._drop, key))
                self._sources[key] = source
            return source.join(on_stall)

    def close(self) -> None:
        """End all readers: the broker stops."""
        for source in list(self._sources.values()):
            source.fail(StreamFailed("the broker stops", hint="read on when it is back"))

    def _drop(self, key: Key, source: Source) -> None:
        # One that failed is replaced while its last reader has not left yet.
        if self._sources.get(key) is source:
            del self._sources[key]
