"""The multiplexer: many channels and control messages over one link, and over the links after it.

Sans I/O: messages in -> events (`receive`), intents -> messages out (`take_outgoing`). One object
is one end of one session. Its driver attaches it to a link, detaches it when the link breaks, and
attaches it to the next one; what was under way goes on. A ProtocolError of `receive` ends the
session: the driver closes the link with its code and begins a new session with a new object.

Intents for a channel that is over do nothing: the peer may have reset it a moment ago. Those that
never make sense (data after `finish`, an unknown channel) are Internal errors, for they are ours.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sth_protocol import frames
from sth_protocol.channel import Channel
from sth_protocol.errors import (
    BadHandshake,
    ChannelViolation,
    FlowControlViolated,
    InsufficientResources,
    Internal,
    ProtocolError,
    SessionLost,
)
from sth_protocol.events import (
    Accepted,
    Closed,
    Control,
    Credited,
    Data,
    Event,
    Finished,
    Opened,
    Pong,
    Reset,
)
from sth_protocol.sendlog import SendLog
from sth_protocol.window import MAX_WINDOW, MIN_WINDOW, POOL, Pool

QUANTUM: Final = 64 * 1024
# A frame of 64 KiB and the small ones that ride along fit in.
MESSAGE_TARGET: Final = 66 * 1024
ACK_FRAMES: Final = 32
ACK_BYTES: Final = 64 * 1024
MAX_PONGS: Final = 16
MAX_RESET_TEXT: Final = 4096


class Side(Enum):
    """Which end this is; its value is the first channel that it opens."""

    AGENT = 1
    BROKER = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """`channels`: open at once, for each opener; the rest in bytes. `pool`: growth of all receive
    windows; `control`: control frames that wait to be sent; `unacknowledged`: frames kept for the
    peer, beyond which nothing new is sent."""

    channels: int = 4096
    pool: int = POOL
    control: int = 8 * 1024 * 1024
    unacknowledged: int = 32 * 1024 * 1024


class Mux:
    """One end of a session. `received`: numbered frames that came in it."""

    def __init__(self, *, side: Side, limits: Limits = Limits()) -> None:
        self.received = 0
        self._limits = limits
        self._parity = side.value % 2
        self._next_own = side.value
        self._next_peer = 3 - side.value
        self._pool = Pool(limits.pool)
        self._channels: dict[int, Channel] = {}
        self._count_own = 0
        self._log = SendLog()
        self._attached = False
        self._failed = False
        # What waits to be sent.
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._ready: OrderedDict[int, Channel] = OrderedDict()
        self._credit_due: dict[int, Channel] = {}
        self._pongs: deque[int] = deque(maxlen=MAX_PONGS)
        self._ping: int | None = None
        # What came and is not acknowledged.
        self._acknowledged = 0
        self._bytes_since_ack = 0
        self._ack_due = False
        self._handlers: dict[int, Callable[[int, int, Any], list[Event]]] = {
            frames.HELLO: self._on_handshake,
            frames.WELCOME: self._on_handshake,
            frames.OPEN: self._on_open,
            frames.ACCEPT: self._on_accept,
            frames.FIN: self._on_fin,
            frames.RESET: self._on_reset,
            frames.CREDIT: self._on_credit,
            frames.CONTROL: self._on_control,
            frames.ACK: self._on_ack,
            frames.PING: self._on_ping,
            frames.PONG: self._on_pong,
            frames.CLOSE: self._on_close,
            frames.DONE: self._on_done,
        }

    # -- links ---------------------------------------------------------------------------------

    @property
    def resumable(self) -> range:
        """The counts of received frames with which a peer can go on; empty after an error."""
        if self._failed:
            return range(0)
        return range(self._log.forgotten, self._log.numbered + 1)

    def attach(self, *, peer_received: int) -> None:
        """Go on over a new link, or over the first one (`peer_received` 0). The peer was told our
        `received` in the handshake. SessionLost if the session cannot go on."""
        if self._failed:
            raise SessionLost("the session ended with an error of the protocol")
        self._log.rewind(peer_received)
        self._attached = True
        self._forget_link()
        self._acknowledged = self.received
        # A peer that was never told more than a channel begins with may not know the channel yet:
        # its OPEN comes again only after these.
        for number, channel in self._channels.items():
            if channel.window.was_announced and channel.receiving != "done":
                self._credit_due[number] = channel

    def detach(self) -> None:
        """The link is gone; everything but its pings is kept. Messages that still come of it are
        ignored: the peer will send them again."""
        self._attached = False
        self._forget_link()

    def _forget_link(self) -> None:
        self._pongs.clear()
        self._ping = None
        self._bytes_since_ack = 0
        self._ack_due = False

    # -- intents -------------------------------------------------------------------------------

    def channels(self) -> Collection[int]:
        """The numbers of the channels that are not over."""
        return self._channels.keys()

    def open(self, request: Mapping[str, object]) -> int:
        """Open a channel; up to 16 KiB may be sent before it is accepted. InsufficientResources
        when too many are open or too much waits; TooLarge for a request of more than 64 KiB."""
        if self._count_own >= self._limits.channels:
            raise InsufficientResources(f"{self._count_own} channels are open on this link")
        self._check_control_room()
        number = self._next_own
        frame = frames.encode_map(frames.OPEN, number, MIN_WINDOW, request)
        self._next_own += 2
        self._count_own += 1
        self._channels[number] = Channel(number, opened_here=True, pool=self._pool)
        self._queue_control(frame)
        return number

    def accept(self, channel: int, info: Mapping[str, object] | None = None) -> None:
        """Accept a channel that the peer opened; data may be sent on it from now on."""
        found = self._own(channel)
        if found is None:
            return
        frame = frames.encode_map(frames.ACCEPT, channel, found.window.limit, info or {})
        found.sending = found.check_own(found.sending, "accept")
        self._queue_control(frame)

    def send(self, channel: int, data: bytes | memoryview, *, more: bool = False) -> None:
        """Queue `data` of any size; it goes out as credit allows. `more`: the message goes on in
        the next call. Empty data only ends a message that was begun."""
        found = self._own(channel)
        if found is None:
            return
        if isinstance(data, memoryview):
            # What its owner may change before it is sent is copied.
            data = data.cast("B") if data.readonly and data.c_contiguous else data.tobytes()
        found.enqueue(data, more=more)
        self._list_if_ready(found)

    def sendable(self, channel: int) -> int:
        """Credit less what is queued, in bytes: what may be sent now without piling up; may be
        negative. 0 for a channel that is over."""
        found = self._own(channel)
        return found.credit.available - found.queued if found else 0

    def queued(self, channel: int) -> int:
        """Bytes that wait for credit or for their turn."""
        found = self._own(channel)
        return found.queued if found else 0

    def finish(self, channel: int) -> None:
        """Send no more on the channel, after what is queued. Calling it again does nothing."""
        found = self._own(channel)
        if found is None or found.finishing:
            return
        found.check_own(found.sending, "finish")
        found.finishing = True
        self._list_if_ready(found)

    def reset(self, channel: int, code: str, message: str = "") -> None:
        """End the channel in both directions at once; what is queued on it is dropped."""
        found = self._own(channel)
        if found is None:
            return
        values = {"code": code[:64], "message": message[:MAX_RESET_TEXT]}
        self._queue_control(frames.encode_map(frames.RESET, channel, found.window.consumed, values))
        self._remove(found)

    def consume(self, channel: int, count: int) -> None:
        """`count` bytes more that came on the channel have reached their user."""
        found = self._own(channel)
        if found is None:
            return
        if found.window.consume(count):
            self._credit_due[channel] = found
        self._finish_receiving(found)

    def control(self, message: Mapping[str, object]) -> None:
        """Queue a control message. TooLarge above 64 KiB, InsufficientResources when too many
        wait already."""
        self._check_control_room()
        self._queue_control(frames.encode_map(frames.CONTROL, 0, 0, message))

    def ping(self, token: int) -> None:
        """Ask for a Pong of `token` (0 to 2**63 - 1); only the newest ping of a link waits."""
        self._ping = token

    def flush_consumed(self) -> None:
        """Acknowledge all that came, and report what was consumed since the last CREDIT; the
        driver calls it about once a second."""
        self._ack_due = self.received != self._acknowledged
        for number, channel in self._channels.items():
            if channel.window.tick() and channel.receiving != "done":
                self._credit_due[number] = channel

    def _own(self, number: int) -> Channel | None:
        """The channel of an intent; None if it is over; Internal if there never was one."""
        found = self._channels.get(number)
        if found is None and not self._was_opened(number):
            raise Internal(f"there is no channel {number}")
        return found

    def _was_opened(self, number: int) -> bool:
        return 0 < number < (self._next_own if number % 2 == self._parity else self._next_peer)

    def _check_control_room(self) -> None:
        if self._control_bytes > self._limits.control:
            raise InsufficientResources(
                f"{self._control_bytes} bytes of control messages wait for the peer",
                hint="the link is down or too slow; try again later",
            )

    def _queue_control(self, frame: bytes) -> None:
        self._control.append(frame)
        self._control_bytes += len(frame)

    def _list_if_ready(self, channel: Channel) -> None:
        if channel.ready:
            self._ready[channel.number] = channel

    def _remove(self, channel: Channel) -> None:
        channel.close()
        del self._channels[channel.number]
        self._ready.pop(channel.number, None)
        self._credit_due.pop(channel.number, None)
        if channel.number % 2 == self._parity:
            self._count_own -= 1

    def _finish_receiving(self, channel: Channel) -> None:
        """Send DONE when all that the peer sent before its FIN is consumed."""
        if channel.receiving != "finished" or not channel.window.empty:
            return
        channel.receiving = channel.check_own(channel.receiving, "done")
        channel.window.close()
        self._credit_due.pop(channel.number, None)
        self._queue_control(frames.encode(frames.DONE, channel.number, channel.window.consumed))
        if channel.over:
            self._remove(channel)

    # -- outgoing ------------------------------------------------------------------------------

    @property
    def has_outgoing(self) -> bool:
        """Whether `take_outgoing` has something to give."""
        if not self._attached:
            return False
        if self._ack_due or self._credit_due or self._pongs or self._ping is not None:
            return True
        return self._log.rewound or bool((self._control or self._ready) and not self._log_full)

    @property
    def _log_full(self) -> bool:
        return self._log.cost >= self._limits.unacknowledged

    def take_outgoing(self, max_bytes: int = 4 * QUANTUM) -> list[bytes]:
        """The next messages for the link, about 64 KiB each and about `max_bytes` in all; never
        waits for more. First what is not numbered, then what the last link may have lost, control
        frames, and data of the channels in turn."""
        if not self.has_outgoing:
            return []
        batch = _Batch()
        self._take_unnumbered(batch)
        while self._log.rewound and batch.total < max_bytes:
            batch.add(self._log.next_again())
        if self._log.rewound:
            return batch.finish()
        while self._control and batch.total < max_bytes and not self._log_full:
            frame = self._control.popleft()
            self._control_bytes -= len(frame)
            self._log.append(frame)
            batch.add(frame)
        if not self._control:
            self._take_data(batch, max_bytes)
        return batch.finish()

    def _take_unnumbered(self, batch: "_Batch") -> None:
        if self.received != self._acknowledged:
            batch.add(frames.encode(frames.ACK, 0, self.received))
        self._acknowledged = self.received
        self._bytes_since_ack = 0
        self._ack_due = False
        while self._pongs:
            batch.add(frames.encode(frames.PONG, 0, self._pongs.popleft()))
        if self._ping is not None:
            batch.add(frames.encode(frames.PING, 0, self._ping))
            self._ping = None
        for number, channel in self._credit_due.items():
            limit, consumed = channel.window.announce()
            batch.add(frames.encode(frames.CREDIT, number, limit, consumed))
        self._credit_due.clear()

    def _take_data(self, batch: "_Batch", max_bytes: int) -> None:
        ready, log = self._ready, self._log
        while ready and batch.total < max_bytes and not self._log_full:
            number, channel = ready.popitem(last=False)
            end = batch.total + QUANTUM
            while channel.ready and batch.total < end:
                frame = channel.next_frame()
                log.append(frame)
                batch.add(frame)
            if channel.ready:
                ready[number] = channel

    # -- incoming ------------------------------------------------------------------------------

    def receive(self, message: bytes) -> list[Event]:
        """The events of a message of the link. ProtocolError, and nothing else: the session is
        over, close the link with its code."""
        if not self._attached:
            return []
        events: list[Event] = []
        try:
            for kind, number, arg, payload in frames.decode(message):
                if kind in (frames.DATA, frames.MORE):
                    self._on_data(number, arg, payload, kind == frames.MORE, events)
                else:
                    events += self._handlers[kind](number, arg, payload)
                if frames.SHAPES[kind].numbered:
                    self.received += 1
        except ProtocolError:
            self._failed = True
            self.detach()
            raise
        self._bytes_since_ack += len(message)
        unacknowledged = self.received - self._acknowledged
        if unacknowledged >= ACK_FRAMES or (unacknowledged and self._bytes_since_ack >= ACK_BYTES):
            self._ack_due = True
        return events

    def _peers(self, number: int) -> Channel | None:
        """The channel of a frame; None if it is over, and the frame was on its way."""
        found = self._channels.get(number)
        if found is None and not self._was_opened(number):
            raise ChannelViolation(f"channel {number} was never opened")
        return found

    def _on_data(
        self, number: int, offset: int, data: bytes, more: bool, events: list[Event]
    ) -> None:
        channel = self._channels.get(number) or self._peers(number)
        if channel is not None:
            channel.receive(offset, data, more=more)
            events.append(Data(number, data, more))

    def _on_handshake(self, _number: int, _arg: int, _payload: bytes) -> list[Event]:
        raise BadHandshake("a handshake in the middle of a session")

    def _on_open(self, number: int, limit: int, payload: bytes) -> list[Event]:
        if number != self._next_peer:
            raise ChannelViolation(f"channel {number} opened, {self._next_peer} is the next one")
        if len(self._channels) - self._count_own >= self._limits.channels:
            raise ChannelViolation(f"more than {self._limits.channels} channels opened")
        self._check_peer_reads()
        if not MIN_WINDOW <= limit <= MAX_WINDOW:
            raise FlowControlViolated(f"channel {number} opened with a credit of {limit}")
        request = frames.decode_map(payload)
        channel = Channel(number, opened_here=False, pool=self._pool)
        channel.credit.raise_limit(limit)
        self._next_peer += 2
        self._channels[number] = channel
        return [Opened(number, request)]

    def _check_peer_reads(self) -> None:
        """A peer that asks and asks but takes no answer would fill our memory."""
        if self._control_bytes > 2 * self._limits.control:
            raise FlowControlViolated(
                f"{self._control_bytes} bytes of answers wait while more is asked"
            )

    def _on_accept(self, number: int, limit: int, payload: bytes) -> list[Event]:
        info = frames.decode_map(payload)
        channel = self._peers(number)
        if channel is None:
            return []
        channel.receiving = channel.check_peer(channel.receiving, "accept")
        events: list[Event] = [Accepted(number, info)]
        if channel.credit.raise_limit(limit):
            self._list_if_ready(channel)
            events.append(Credited(number, channel.credit.consumed))
        return events

    def _on_fin(self, number: int, offset: int, _payload: None) -> list[Event]:
        channel = self._peers(number)
        if channel is None:
            return []
        channel.receiving = channel.check_peer(channel.receiving, "finish")
        channel.window.receive(offset, 0)
        self._finish_receiving(channel)
        return [Finished(number)]

    def _on_reset(self, number: int, consumed: int, payload: bytes) -> list[Event]:
        values = frames.decode_map(payload)
        code, message = values.get("code"), values.get("message", "")
        if not isinstance(code, str) or not isinstance(message, str):
            raise ChannelViolation(f"channel {number}: a RESET without a code")
        channel = self._peers(number)
        if channel is None:
            return []
        channel.credit.note_consumed(consumed)
        self._remove(channel)
        return [Reset(number, code, message, consumed)]

    def _on_credit(self, number: int, limit: int, consumed: int) -> list[Event]:
        channel = self._peers(number)
        if channel is None:
            return []
        channel.sending = channel.check_peer(channel.sending, "credit")
        credit = channel.credit
        consumed_more = credit.note_consumed(consumed)
        granted_more = credit.raise_limit(limit)
        if granted_more:
            self._list_if_ready(channel)
        return [Credited(number, credit.consumed)] if consumed_more or granted_more else []

    def _on_done(self, number: int, offset: int, _payload: None) -> list[Event]:
        channel = self._peers(number)
        if channel is None:
            return []
        channel.sending = channel.check_peer(channel.sending, "done")
        if offset != channel.credit.sent:
            raise ChannelViolation(
                f"channel {number}: done at offset {offset} of {channel.credit.sent}"
            )
        consumed_more = channel.credit.note_consumed(offset)
        if channel.over:
            self._remove(channel)
        return [Credited(number, offset)] if consumed_more else []

    def _on_control(self, _number: int, _arg: int, payload: bytes) -> list[Event]:
        self._check_peer_reads()
        return [Control(frames.decode_map(payload))]

    def _on_ack(self, _number: int, count: int, _payload: None) -> list[Event]:
        self._log.acknowledge(count)
        return []

    def _on_ping(self, _number: int, token: int, _payload: None) -> list[Event]:
        self._pongs.append(token)
        return []

    def _on_pong(self, _number: int, token: int, _payload: None) -> list[Event]:
        return [Pong(token)]

    def _on_close(self, _number: int, _arg: int, payload: bytes) -> list[Event]:
        values = frames.decode_map(payload)
        code, message = values.get("code", ""), values.get("message", "")
        return [Closed(str(code), str(message))]


class _Batch:
    """Frames gathered into messages. `total`: bytes so far."""

    __slots__ = ("_messages", "_parts", "_size", "total")

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self.total = 0

    def add(self, frame: bytes) -> None:
        size = len(frame)
        if self._parts and self._size + size > MESSAGE_TARGET:
            self._close_message()
        self._parts.append(frame)
        self._size += size
        self.total += size

    def finish(self) -> list[bytes]:
        """All messages."""
        if self._parts:
            self._close_message()
        return self._messages

    def _close_message(self) -> None:
        # One frame alone is passed on as it is: join does not copy it.
        self._messages.append(b"".join(self._parts))
        self._parts = []
        self._size = 0
