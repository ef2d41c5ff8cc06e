"""A stream of bytes, such as the body of a request, stored in a Topic as batches.

What has arrived is stored at once while nothing of this stream is under way; meanwhile it gathers.
So a slow writer's records are seen promptly, and a fast one's fill their batches, without a timer.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sth_broker.channel import Signal
from sth_broker.topic_dedupe import UNNUMBERED_EPOCH
from sth_broker.topic_kinds import BATCH_BYTES, Former, Piece
from sth_broker.topic_log import Submitted, TopicLog
from sth_protocol import batch
from sth_protocol.errors import TooLarge

_GATHERED_BYTES = 2 * BATCH_BYTES
_UNDER_WAY = 4
# Text whose newline does not come is stored without it after so many seconds.
_TEXT_TICK = 0.1


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What was stored: records, the bytes of them, and the offset after the last (0 if none)."""

    records: int
    size: int
    next_offset: int


class Publication:
    """One stream on its way into a Topic, as one producer."""

    def __init__(
        self, log: TopicLog, chunks: AsyncIterator[bytes], *, room_timeout: float | None
    ) -> None:
        self._log = log
        self._chunks = chunks
        self._room_timeout = room_timeout
        self._former = Former(log.info.kind)
        self._flags = 0 if log.info.kind == "ndjson" else batch.FLAG_CHUNK
        self._producer = uuid.uuid4().bytes
        self._under_way: deque[Submitted] = deque()
        # Something arrived or was stored; something was taken.
        self._moved = Signal()
        self._taken = Signal()
        self._ended = False
        self._failure: Exception | None = None
        self._records = self._size = self._next_offset = 0

    async def run(self) -> PublishResult:
        """Returns when all of it is durable. If the stream fails, what came whole is stored, what
        was cut is not, and its error is raised. Errors of the Topic as of `TopicLog`; TooLarge."""
        pump = asyncio.create_task(self._pump(), name="topic publication")
        try:
            while self._goes_on():
                if self._may_store():
                    await self._store(self._take())
                else:
                    await self._wait()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        return PublishResult(self._records, self._size, self._next_offset)

    def _goes_on(self) -> bool:
        while self._under_way and self._log.is_durable(self._under_way[0]):
            self._under_way.popleft()
        if not self._ended or self._under_way:
            return True
        return self._former.size > 0 if self._failure is None else self._former.ready

    def _may_store(self) -> bool:
        if self._ended and self._failure is None:
            return self._former.size > 0 and len(self._under_way) < _UNDER_WAY
        if not self._former.ready or len(self._under_way) >= _UNDER_WAY:
            return False
        return not self._under_way or self._former.size >= BATCH_BYTES

    def _take(self) -> list[Piece]:
        try:
            return self._former.take(everything=self._ended)
        except TooLarge as error:
            # What came before it is stored, as when the stream itself fails.
            self._failure, self._ended = error, True
            self._former = Former(self._log.info.kind)
            return []

    async def _wait(self) -> None:
        tick = _TEXT_TICK if self._former.holds_text and not self._under_way else None
        try:
            async with asyncio.timeout(tick):
                await self._moved.wait()
        except TimeoutError:
            await self._store(self._former.take(everything=True))

    async def _store(self, pieces: list[Piece]) -> None:
        self._taken.notify()
        for piece in pieces:
            data = batch.encode(
                piece.payload,
                producer=self._producer,
                epoch=UNNUMBERED_EPOCH,
                base_sequence=self._records,
                count=piece.count,
                flags=self._flags,
            )
            await self._log.ready(len(data), timeout=self._room_timeout)
            submitted = self._log.submit(data, batch.read_header(data))
            assert submitted.future is not None
            submitted.future.add_done_callback(self._on_stored)
            self._under_way.append(submitted)
            self._records += piece.count
            self._size += len(piece.payload)
            self._next_offset = submitted.end

    def _on_stored(self, _: asyncio.Future[int]) -> None:
        self._moved.notify()

    async def _pump(self) -> None:
        """Read the stream, a bounded piece ahead."""
        try:
            async for chunk in self._chunks:
                self._former.add(chunk)
                self._moved.notify()
                while self._former.size >= _GATHERED_BYTES and self._former.ready:
                    await self._taken.wait()
            self._former.finish()
        except Exception as error:
            self._failure = error
        self._ended = True
        self._moved.notify()
