"""Batches that come from an agent's channel, checked, stored and acknowledged.

Several are under way at once; one acknowledgement answers all that became durable together, and
only then are their bytes consumed, so that credit slows a writer down to what the disk takes.
"""

from collections import deque
from dataclasses import dataclass

from sth_broker.channel import Channel, Signal
from sth_broker.topic_log import Submitted, TopicLog
from sth_broker.topic_readers import first_of
from sth_protocol import batch, codec
from sth_protocol.batch import FLAG_CHUNK, Header
from sth_protocol.errors import BadFrame


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A batch that is not acknowledged. `size`: bytes of its message."""

    submitted: Submitted
    last_sequence: int
    size: int


class Intake:
    """One channel on which an agent publishes, for one producer in one epoch."""

    def __init__(self, log: TopicLog, channel: Channel, *, producer: bytes, epoch: int) -> None:
        self._log = log
        self._channel = channel
        self._producer = producer
        self._epoch = epoch
        self._awaited: deque[_Awaited] = deque()
        self._arrived = Signal()
        self._ended = False
        self._acknowledged = False
        self._waits_for_room = False

    async def serve(self) -> None:
        """Until the agent has finished and all of it is acknowledged. BadFrame or Corrupt for a
        batch that does not fit, which is not stored; errors as of `TopicLog`."""
        await self._log.ready(0)
        expected = await self._log.next_sequence(self._producer, self._epoch)
        self._channel.accept({"next_sequence": expected})
        await first_of(self._take_in_all(), self._acknowledge_all(), self._until_given_up())
        self._channel.finish()

    async def _take_in_all(self) -> None:
        while (message := await self._channel.read_message()) is not None:
            header = self._checked(message)
            self._waits_for_room = True
            await self._log.ready(len(message), timeout=0 if self._channel.over else None)
            self._waits_for_room = False
            submitted = self._log.submit(message, header)
            self._awaited.append(_Awaited(submitted, header.next_sequence - 1, len(message)))
            self._arrived.notify()
        self._ended = True
        self._arrived.notify()
        while not self._acknowledged:
            await self._arrived.wait()

    async def _acknowledge_all(self) -> None:
        while self._awaited or not self._ended:
            if not self._awaited:
                await self._arrived.wait()
                continue
            await self._log.durable(self._awaited[0].submitted)
            size = 0
            while self._awaited and self._log.is_durable(self._awaited[0].submitted):
                last = self._awaited.popleft()
                size += last.size
            self._channel.consume(size)
            answer = codec.pack([last.last_sequence, last.submitted.last_offset])
            await self._channel.write(answer)
        self._acknowledged = True
        self._arrived.notify()

    async def _until_given_up(self) -> None:
        """Returns when the agent is gone while a batch waits for room. It will send that again;
        what came before and has room is stored."""
        await self._channel.wait_closed()
        while not self._waits_for_room:
            await self._arrived.wait()

    def _checked(self, message: bytes) -> Header:
        header = batch.verify(message)
        if header.producer != self._producer or header.epoch != self._epoch:
            raise BadFrame("the batch is of another producer or epoch than its channel")
        is_chunks = bool(header.flags & FLAG_CHUNK)
        if is_chunks != (self._log.info.kind != "ndjson"):
            raise BadFrame(f"a batch that does not fit a Topic of {self._log.info.content_type}")
        return header
