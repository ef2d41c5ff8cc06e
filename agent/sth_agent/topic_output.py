"""An Instance's output on its way into a Topic: one batch for every frame, acknowledged ones leave.

The runner is not trusted: it gives payload, count and first record; here the count is checked, and
producer, epoch and checksum are added. Many batches are in flight; only what the broker has stored
is taken out of the socket, so neither a broken link nor a killed agent loses any.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sth_agent.channels import Channel, ChannelUser
from sth_agent.output import LARGE_FRAME, Output
from sth_agent.output_walker import Piece
from sth_agent.session import Session
from sth_protocol import batch, codec
from sth_protocol.errors import BadFrame, SessionLost, SthError
from sth_sandbox.runners import frames

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
_LINES = frozenset({frames.NDJSON, frames.TEXT_NDJSON})


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that is not acknowledged. `next_sequence`, `end`: what follows it, in the Topic and
    in the stream."""

    next_sequence: int
    end: int


@dataclass(frozen=True, slots=True)
class Producer:
    """Who writes. `identity`: 16 bytes, the same for the life of the Instance."""

    topic: str
    content_type: str
    identity: bytes
    epoch: int

    @property
    def has_lines(self) -> bool:
        """Whether its records are lines; otherwise each batch is one chunk of bytes."""
        return self.content_type in _LINES


class TopicOutput(ChannelUser):
    """The sink that publishes. `session_began` opens its channel anew for every session.

    `trouble` is called with a sentence for the Instance's log when the broker refuses it.
    """

    def __init__(self, output: Output, producer: Producer, trouble: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._producer = producer
        self._trouble = trouble
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._is_accepted = False
        # Of an acknowledgement, what has come.
        self._answer = b""
        self._retry: asyncio.TimerHandle | None = None
        self._in_flight: deque[InFlight] = deque()
        self._next = output.position.sequence
        self._stored = 0
        # The parts of a frame that is not whole yet, and whether they have left the socket.
        self._parts: list[memoryview] = []
        self._is_absorbing = False
        # A large frame, and what follows it, until everything in flight is stored.
        self._pending: deque[Piece] = deque()
        # A large batch that left the socket before it was stored.
        self._held: tuple[bytes, InFlight] | None = None
        self._has_ended = False

    def session_began(self, session: Session) -> None:
        """Publish over this session from now on."""
        self._session = session
        self._open()

    def close(self) -> None:
        """The Instance is forgotten."""
        self._session = None
        if self._retry is not None:
            self._retry.cancel()
        if self._channel is not None:
            self._channel.reset(SessionLost("the Instance is gone"))
        self._output.detach(self)

    # -- the channel ---------------------------------------------------------------------------

    def _open(self) -> None:
        self._retry = None
        self._is_accepted = False
        self._answer = b""
        if self._session is None or self._session.lost:
            return
        request = {
            "kind": "publish",
            "topic": self._producer.topic,
            "content_type": self._producer.content_type,
            "producer": self._producer.identity,
            "epoch": self._producer.epoch,
        }
        try:
            self._channel = self._session.open(request, self)
        except SthError as error:
            self._try_later(error)

    def accepted(self, info: Mapping[str, Any]) -> None:
        stored = info.get("next_sequence")
        self._stored = stored if isinstance(stored, int) else 0
        self._is_accepted = True
        self._in_flight.clear()
        self._next = self._output.position.sequence
        self._pending.clear()
        if self._held is not None:
            self._send_held()
        if not self._is_absorbing:
            self._parts.clear()
        self._output.attach(self)
        if self._has_ended and not self._in_flight:
            self._finish()

    def received(self, data: bytes, more: bool) -> None:
        channel = self._channel
        if channel is None:
            return
        # Credit may cut even a message of a few bytes.
        self._answer += data
        channel.consume(len(data))
        if more:
            return
        answer, self._answer = self._answer, b""
        try:
            last, _ = codec.unpack(answer)
        except (BadFrame, ValueError, TypeError):
            channel.reset(BadFrame("an acknowledgement that is none"))
            self.reset(BadFrame("the broker acknowledged in an unknown way"), None)
            return
        self._acknowledge(last + 1)

    def credited(self, consumed: int) -> None:
        self._output.pump()

    def reset(self, error: SthError, consumed: int | None) -> None:
        self._channel = None
        self._is_accepted = False
        self._output.detach(self)
        if not isinstance(error, SessionLost):
            self._try_later(error)

    def _try_later(self, error: SthError) -> None:
        self._trouble(f"Topic {self._producer.topic} takes no output: {error.message}")
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._open)

    # -- batches -------------------------------------------------------------------------------

    def wants(self) -> bool:
        if self._channel is None or not self._is_accepted or self._pending:
            return False
        return self._channel.sendable > 0

    def take(self, piece: Piece) -> None:
        if self._channel is None:
            # Refused a moment ago: what follows stays in the socket.
            return
        if self._pending:
            self._pending.append(piece)
        else:
            self._gather(piece)

    def _gather(self, piece: Piece) -> None:
        if piece.header.length > LARGE_FRAME:
            if self._in_flight:
                # It has to leave the socket in parts; what stands before it must not go with it.
                self._pending.append(piece)
                return
            self._is_absorbing = True
            self._output.absorb(piece)
        self._parts.append(piece.data)
        if piece.last:
            self._publish(piece)

    def _publish(self, piece: Piece) -> None:
        parts, self._parts = self._parts, []
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        encoded = b""
        try:
            sequence, count = self._numbering(piece, payload)
            flight = InFlight(sequence + count, piece.end)
            if flight.next_sequence > self._stored:
                encoded = self._encoded(payload, sequence, count)
        except BadFrame as error:
            self._refuse(error)
            return
        self._next = flight.next_sequence
        if encoded:
            assert self._channel is not None
            self._channel.send(encoded)
        self._in_flight.append(flight)
        if self._is_absorbing:
            self._is_absorbing = False
            self._held = (encoded, flight)
        self._acknowledge(self._stored)

    def _numbering(self, piece: Piece, payload: bytes | memoryview) -> tuple[int, int]:
        if not self._producer.has_lines:
            return self._next, 1
        header = piece.header
        count = bytes(payload).count(b"\n")
        if not header.flags & frames.RECORDS or not count or count != header.count:
            raise BadFrame(
                f"the output is {self._producer.content_type}, and what the program gave out is "
                "not whole lines"
            )
        return header.number, count

    def _encoded(self, payload: bytes | memoryview, sequence: int, count: int) -> bytes:
        return batch.encode(
            payload,
            producer=self._producer.identity,
            epoch=self._producer.epoch,
            base_sequence=sequence,
            count=count,
            flags=0 if self._producer.has_lines else batch.FLAG_CHUNK,
        )

    def _send_held(self) -> None:
        """A large batch is no longer in the socket: it is sent from memory."""
        assert self._held is not None and self._channel is not None
        encoded, flight = self._held
        if flight.next_sequence > self._stored:
            self._channel.send(encoded)
        self._next = flight.next_sequence
        self._in_flight.append(flight)
        self._acknowledge(self._stored)

    def _acknowledge(self, next_sequence: int) -> None:
        """The broker has stored everything before this sequence."""
        self._stored = max(self._stored, next_sequence)
        last = None
        while self._in_flight and self._in_flight[0].next_sequence <= self._stored:
            last = self._in_flight.popleft()
        if last is None:
            return
        if self._held is not None and self._held[1].next_sequence <= last.next_sequence:
            self._held = None
        self._output.consumed(last.end, sequence=last.next_sequence)
        if not self._in_flight:
            self._all_stored()

    def _all_stored(self) -> None:
        waiting, self._pending = self._pending, deque()
        for piece in waiting:
            self.take(piece)
        if self._has_ended and not self._in_flight and not self._pending:
            self._finish()
        else:
            self._output.pump()

    def ended(self, error: SthError | None) -> None:
        if error is not None:
            self._trouble(f"the output ended early: {error.message}")
        self._has_ended = True
        if not self._in_flight and not self._pending:
            self._finish()

    def _finish(self) -> None:
        if self._channel is not None:
            self._channel.finish()

    def _refuse(self, error: SthError) -> None:
        """Nothing that follows can be published."""
        self._trouble(error.message)
        self._output.detach(self)
        if self._channel is not None:
            self._channel.reset(error)
            self._channel = None
