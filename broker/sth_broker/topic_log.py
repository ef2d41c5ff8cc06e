"""One open Topic: its log, the producers that write it and the plain readers that read it.

All of a Topic's decisions are made here, on the event loop, between two awaits: a batch gets its
offset when it is submitted, many are under way at once, and only what the store has made durable
moves `end`. If the store refuses, everything under way fails and the state is read again from the
store before the next batch.
"""

import asyncio
import copy
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sth_broker.channel import Signal
from sth_broker.store.interface import Chunk, Json, Records, Topics
from sth_broker.topic_cursor import PlainCursor
from sth_broker.topic_dedupe import Duplicate, Producers
from sth_broker.topic_kinds import Kind, kind_of
from sth_protocol.batch import Buffer, Header
from sth_protocol.errors import NotFound, SthError, StorageFailed, TopicFull

logger = logging.getLogger(__name__)

SNAPSHOT_EVERY_BYTES = 32 * 1024 * 1024
_SCAN_BYTES = 1024 * 1024
# While writers wait for room, readers that confirm by time are looked at this often, in seconds.
_ROOM_TICK = 1.0


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A Topic as its record says. `log`: the name of its log; `quota_bytes`: how much it keeps."""

    space: str
    name: str
    content_type: str
    created_ms: int
    log: str
    quota_bytes: int

    @property
    def key(self) -> str:
        return f"topic/{self.space}/{self.name}"

    @property
    def kind(self) -> Kind:
        return kind_of(self.content_type)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch under way. `end`: the Topic's end once it is durable; `last_offset`: of its last
    record, None for a duplicate whose offset is forgotten; `generation`: how many times the store
    had failed before; `future`: done when the store has answered, None for a duplicate."""

    end: int
    last_offset: int | None
    generation: int
    future: asyncio.Future[int] | None = None


class TopicLog:
    """Load it before use. `end`: the offset after the last durable record; `settlers`: what finds
    out how far readers have confirmed; `touched`: called when something has to be kept, soon."""

    def __init__(
        self,
        info: TopicInfo,
        *,
        records: Records,
        topics: Topics,
        clock: Callable[[], float],
        touched: Callable[["TopicLog"], None],
    ) -> None:
        self.info = info
        self.cursor = PlainCursor()
        self.settlers: set[Callable[[], None]] = set()
        self.end = 0
        self._touched = touched
        self._records = records
        self._topics = topics
        self._clock = clock
        self._producers = Producers()
        # Wakes who waits for records, for durability or for the end of the Topic.
        self._moved = Signal()
        # Wakes writers who wait for room.
        self._confirmed = Signal()
        self._written_end = 0
        self._size = 0
        self._under_way = 0
        # What closes the Topic to writers now; and every failure so far, with the end it left.
        self._failure: SthError | None = None
        self._failures: list[tuple[int, SthError]] = []
        self._removed = False
        self._told_full = False
        self._loading = asyncio.Lock()
        self._making_room = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._snapshot_offset = 0
        self._unsnapshotted = 0
        self._kept_cursor: Json | None = None

    # -- loading

    async def load(self) -> None:
        """Read the state from the store. StorageFailed."""
        bounds = await self._topics.bounds(self.info.log)
        snapshot = await self._records.get(self._key("producers"))
        offset, producers = bounds.start, Producers()
        if snapshot is not None and snapshot.value["log"] == self.info.log:
            kept = int(snapshot.value["offset"])
            if bounds.start <= kept <= bounds.end:
                offset, producers = kept, Producers.from_value(snapshot.value["producers"])
        self._snapshot_offset = offset
        self._unsnapshotted = 0
        while offset < bounds.end:
            chunk = await self._topics.read(self.info.log, offset, _SCAN_BYTES)
            for each in chunk.batches:
                producers.stored(each.header, now_ms=each.header.time_ms)
                self._unsnapshotted += each.header.size
            offset = chunk.next_offset
        producers.expire(now_ms=self._now_ms())
        self._producers = producers
        self._size = bounds.size
        self.end = self._written_end = bounds.end
        if self._kept_cursor is None:
            await self._load_cursor()
        self.cursor.skip_to(bounds.start)

    async def _load_cursor(self) -> None:
        record = await self._records.get(self._key("cursor"))
        kept: Json = record.value if record is not None else {}
        if kept.get("log") == self.info.log:
            # A disk that was set back in time must not leave readers waiting beyond its end.
            cursor, resume = (min(int(kept[each]), self.end) for each in ("cursor", "resume"))
            self.cursor = PlainCursor(cursor=cursor, resume=resume)
        self._kept_cursor = kept

    # -- writing

    async def ready(self, size: int, *, timeout: float | None = None) -> None:
        """Returns when a batch of `size` bytes, if any, may be submitted. TopicFull if there is no
        room for `timeout` seconds; StorageFailed; NotFound if the Topic was removed."""
        if self._failure is not None:
            await self._recover()
        if size and self._size + size > self.info.quota_bytes:
            await self._make_room(size, timeout)

    def submit(self, data: Buffer, header: Header) -> Submitted:
        """Queue a checked batch, right after `ready`. SequenceGap, ProducerFenced, or the error
        that has closed the Topic."""
        self._refuse_if_failed()
        now_ms = self._now_ms()
        duplicate = self._producers.admit(header, now_ms=now_ms)
        if duplicate is not None:
            return self._again(duplicate, header)
        base = self._written_end
        future = self._topics.append(self.info.log, [data], expected_tail=base, time_ms=now_ms)
        self._producers.stored(dataclasses.replace(header, base_offset=base), now_ms=now_ms)
        self._written_end = base + header.count
        self._size += header.size
        self._unsnapshotted += header.size
        self._under_way += 1
        future.add_done_callback(self._stored)
        if self.wants_snapshot:
            self._touched(self)
        end = self._written_end
        return Submitted(end, end - 1, len(self._failures), future)

    def _again(self, duplicate: Duplicate, header: Header) -> Submitted:
        """The answer waits like any other: what it repeats may itself be under way."""
        if duplicate.offset is None:
            return Submitted(self._written_end, None, len(self._failures))
        end = duplicate.offset + header.count
        return Submitted(end, end - 1, len(self._failures))

    def _stored(self, future: asyncio.Future[int]) -> None:
        self._under_way -= 1
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            self.end = max(self.end, future.result())
        elif self._failure is None:
            logger.error("Topic %s/%s: %s", self.info.space, self.info.name, error)
            named = error if isinstance(error, SthError) else None
            self._fail(named or StorageFailed(f"the store failed: {error!r}"))
        self._moved.notify()

    async def durable(self, submitted: Submitted) -> None:
        """Returns when the batch is durable; the error of the store if it was not stored."""
        while not self.is_durable(submitted):
            await self._moved.wait()

    def is_durable(self, submitted: Submitted) -> bool:
        """Whether it is by now; the error of the store if it was not stored."""
        if submitted.generation == len(self._failures):
            return submitted.end <= self.end
        # Later generations give the same offsets to other batches.
        end, error = self._failures[submitted.generation]
        if submitted.end > end:
            raise copy.copy(error)
        return True

    async def next_sequence(self, producer: bytes, epoch: int) -> int:
        """What that producer is to send next: all that it sent before is durable when this returns,
        since it will forget it. ProducerFenced; the error of the store."""
        sequence = self._producers.next_sequence(producer, epoch)
        await self.durable(Submitted(self._written_end, None, len(self._failures)))
        return sequence

    def _fail(self, error: SthError) -> None:
        self._failure = error
        self._failures.append((self.end, error))
        self._moved.notify()
        self._confirmed.notify()

    async def _recover(self) -> None:
        async with self._loading:
            if self._removed or self._failure is None:
                self._refuse_if_removed()
                return
            while self._under_way:
                await self._moved.wait()
            await self.load()
            self._failure = None

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise copy.copy(self._failure)

    def _refuse_if_removed(self) -> None:
        if self._removed:
            raise NotFound(f"the Topic {self.info.name} was removed")

    # -- reading

    async def read(self, offset: int, max_bytes: int) -> Chunk:
        """What stands at `offset`, waiting for it if it is not there yet. OffsetTrimmed; NotFound
        if the Topic was removed."""
        while offset >= self.end:
            self._refuse_if_removed()
            await self._moved.wait()
        self._refuse_if_removed()
        try:
            chunk = await self._topics.read(self.info.log, offset, max_bytes)
        except SthError:
            self._refuse_if_removed()
            raise
        if chunk.gap is not None:
            logger.error(
                "Topic %s/%s: records %d to %d are damaged and cannot be read",
                self.info.space,
                self.info.name,
                chunk.gap.start,
                chunk.gap.end - 1,
            )
        return chunk

    def readers_moved(self) -> None:
        """A reader came, was handed something or left."""
        self._touched(self)
        self._confirmed.notify()

    def settle(self) -> None:
        """Find out how far the readers have confirmed."""
        self.cursor.settle(now=self._clock())
        for settler in self.settlers:
            settler()

    # -- room

    async def _make_room(self, size: int, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout), self._making_room:
                while self._lacks_room(size):
                    self._refuse_if_failed()
                    await self._trim(size)
                    if self._lacks_room(size):
                        await self._wait_for_readers()
                self._told_full = False
        except TimeoutError:
            raise TopicFull(
                f"the Topic {self.info.name} keeps {self._size} bytes that no reader has had",
                hint="read it, or remove it",
            ) from None

    def _lacks_room(self, size: int) -> bool:
        return self._size + size > self.info.quota_bytes and self._size > 0

    async def _wait_for_readers(self) -> None:
        """Returns when a reader has confirmed something, or the Topic has failed."""
        if not self._told_full:
            self._told_full = True
            logger.warning("Topic %s/%s is full; writers wait", self.info.space, self.info.name)
        resume = self.cursor.resume
        while self.cursor.resume == resume and self._failure is None:
            try:
                async with asyncio.timeout(_ROOM_TICK if self.cursor.present else None):
                    await self._confirmed.wait()
            except TimeoutError:
                # A reader may have confirmed by now without anybody telling.
                pass
            self.settle()

    async def _trim(self, size: int) -> None:
        """Let go of the oldest that every reader has passed."""
        self.settle()
        if self._snapshot_offset < self.cursor.resume:
            await self.keep_producers()
        before = min(self.cursor.resume, self._snapshot_offset)
        counted = self._size
        target = max(0, self.info.quota_bytes - size)
        bounds = await self._topics.trim(self.info.log, before, down_to=target)
        # What was submitted meanwhile stands behind the trim in the store's queue.
        self._size = bounds.size + self._size - counted

    # -- what is kept in records

    async def keep(self, *, snapshot: bool = False) -> bool:
        """Make durable how far the readers are and, if asked or much was written, a snapshot of the
        producers. Whether readers may yet confirm something by themselves."""
        self.settle()
        await self.keep_cursor()
        if snapshot or self.wants_snapshot:
            await self.keep_producers()
        return self.cursor.present > 0 and self.cursor.resume < self.cursor.cursor

    async def keep_cursor(self) -> None:
        """Make the cursor durable, if it has moved."""
        value: Json = {
            "log": self.info.log,
            "cursor": self.cursor.cursor,
            "resume": self.cursor.resume,
        }
        if value != self._kept_cursor and not self._removed:
            await self._records.put(self._key("cursor"), value)
            self._kept_cursor = value

    @property
    def wants_snapshot(self) -> bool:
        """Whether so much was written that the next start would have to read a lot."""
        return self._unsnapshotted >= SNAPSHOT_EVERY_BYTES

    async def keep_producers(self) -> None:
        """Make a snapshot of the producers durable: of records that are, too. The store's error."""
        async with self._keeping:
            end = self._written_end
            if end == self._snapshot_offset or self._failure is not None:
                # After a failure this counts what was not stored, until it is read again.
                return
            self._producers.expire(now_ms=self._now_ms())
            producers = self._producers.to_value()
            self._unsnapshotted = 0
            await self.durable(Submitted(end, None, len(self._failures)))
            value: Json = {"log": self.info.log, "offset": end, "producers": producers}
            await self._records.put(self._key("producers"), value)
            self._snapshot_offset = end

    async def remove(self) -> None:
        """The Topic is deleted: tell everybody who uses it. Returns when nothing is under way."""
        self._removed = True
        self._fail(NotFound(f"the Topic {self.info.name} was removed"))
        while self._under_way:
            await self._moved.wait()
        await self._records.delete(self._key("cursor"))
        await self._records.delete(self._key("producers"))

    def _key(self, what: str) -> str:
        return f"{what}/{self.info.space}/{self.info.name}"

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
