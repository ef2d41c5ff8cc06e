"""The multiplexer: many channels and control messages over one link, and over the links after it.

Sans I/O: messages in -> events (`receive`), intents -> messages out (`take_outgoing`). One object
is one end of one session. Its driver attaches it to a link, detaches it when the link breaks, and
attaches it to the next one; what was under way goes on. A ProtocolError of `receive` ends the
session: the driver closes the link with its code and begins a new session with a new object.

Maps that a peer would refuse (too large, too deep, not sayable) are refused here first, as TooLarge
or BadRequest, and change nothing. Intents for a channel that is over do nothing: the peer may have
reset it a moment ago. Those that never make sense (data after `finish`, an unknown channel) are
Internal errors, for they are ours.
"""

from collections.abc import Collection, Mapping
from typing import Final

from sth_protocol import frames
from sth_protocol.channels import ChannelTable, Limits, Side
from sth_protocol.errors import InsufficientResources, Internal, ProtocolError, SessionLost
from sth_protocol.events import Event
from sth_protocol.frames import FrameType
from sth_protocol.inbox import Inbox
from sth_protocol.outbox import QUANTUM, Outbox
from sth_protocol.window import MIN_WINDOW

__all__ = ["QUANTUM", "Limits", "Mux", "Side"]

DEFAULT_LIMITS: Final = Limits()
MAX_CODE: Final = 64


class Mux:
    """One end of a session."""

    __slots__ = ("_attached", "_channels", "_control_limit", "_failed", "_inbox", "_outbox")

    def __init__(self, *, side: Side, limits: Limits = DEFAULT_LIMITS) -> None:
        self._control_limit = limits.control
        self._outbox = Outbox(unacknowledged=limits.unacknowledged)
        self._channels = ChannelTable(side=side, limits=limits, outbox=self._outbox)
        self._inbox = Inbox(channels=self._channels, outbox=self._outbox, limits=limits)
        self._attached = False
        self._failed = False

    # Links

    @property
    def received(self) -> int:
        """Numbered frames that came in this session; a handshake tells it to the peer."""
        return self._outbox.receipts.received

    @property
    def resumable(self) -> range:
        """The counts of received frames with which a peer can go on; empty after an error."""
        if self._failed:
            return range(0)
        return range(self._outbox.log.forgotten, self._outbox.log.numbered + 1)

    def attach(self, *, peer_received: int) -> None:
        """Go on over a new link, or over the first one (`peer_received` 0). The peer was told our
        `received` in the handshake. SessionLost if the session cannot go on."""
        if self._failed:
            raise SessionLost("the session ended with an error of the protocol")
        self._outbox.log.rewind(peer_received)
        self._outbox.begin_link()
        self._attached = True
        # A peer that was never told more than a channel begins with may not know the channel yet:
        # its OPEN comes again only after these.
        for channel in self._channels:
            if channel.window.was_announced and channel.receiving != "done":
                self._outbox.add_credit(channel)

    def detach(self) -> None:
        """The link is gone; everything but its pings is kept. Messages that still come of it are
        ignored: the peer will send them again."""
        self._attached = False

    # Messages

    def receive(self, message: bytes) -> list[Event]:
        """The events of a message of the newest link (those of an older one must not come here).
        ProtocolError, and nothing else: the session is over, close the link with its code."""
        if not self._attached:
            return []
        try:
            return self._inbox.receive(message)
        except ProtocolError:
            self._failed = True
            self._attached = False
            raise

    @property
    def has_outgoing(self) -> bool:
        """Whether `take_outgoing` has something to give."""
        return self._attached and self._outbox.waiting

    def take_outgoing(self, max_bytes: int = 4 * QUANTUM) -> list[bytes]:
        """The next messages for the link, about 64 KiB each and about `max_bytes` (at least 1) in
        all; never waits for more."""
        return self._outbox.take(max_bytes) if self._attached else []

    # Channels

    def channels(self) -> Collection[int]:
        """The numbers of the channels that are not over: a live view."""
        return self._channels.numbers()

    def open(self, request: Mapping[str, object]) -> int:
        """Open a channel; up to 16 KiB may be sent before it is accepted. InsufficientResources
        when too many are open or too much waits; TooLarge or BadRequest for the request."""
        self._check_control_room()
        number = self._channels.next_own()
        self._outbox.add_control(frames.encode_map(FrameType.OPEN, number, MIN_WINDOW, request))
        self._channels.add_own()
        return number

    def accept(self, channel: int, info: Mapping[str, object] | None = None) -> None:
        """Accept a channel that the peer opened; data may be sent on it from now on. TooLarge or
        BadRequest for `info`."""
        found = self._channels.for_intent(channel)
        if found is None:
            return
        following = found.check_own(found.sending, "accept")
        frame = frames.encode_map(FrameType.ACCEPT, channel, found.window.limit, info or {})
        found.sending = following
        self._outbox.add_control(frame)

    def send(self, channel: int, data: bytes | memoryview, *, more: bool = False) -> None:
        """Queue `data` of any size; it goes out as credit allows. `more`: the message goes on in
        the next call. Empty data only ends a message that was begun."""
        found = self._channels.for_intent(channel)
        if found is None:
            return
        if isinstance(data, memoryview) and isinstance(data.obj, bytes) and data.c_contiguous:
            data = data.cast("B")
        else:
            # What its owner may change before it is sent is copied; bytes are not.
            data = bytes(data)
        found.enqueue(data, more=more)
        self._outbox.add_data(found)

    def sendable(self, channel: int) -> int:
        """Credit less what is queued, in bytes: what may be sent now without piling up; may be
        negative. 0 before `accept`, after `finish`, and for a channel that is over."""
        found = self._channels.for_intent(channel)
        return found.sendable if found else 0

    def queued(self, channel: int) -> int:
        """Bytes that wait for credit or for their turn."""
        found = self._channels.for_intent(channel)
        return found.queued if found else 0

    def finish(self, channel: int) -> None:
        """Send no more on the channel, after what is queued. Calling it again does nothing."""
        found = self._channels.for_intent(channel)
        if found is not None and not found.finishing:
            found.finish()
            self._outbox.add_data(found)

    def reset(self, channel: int, code: str, message: str = "") -> None:
        """End the channel in both directions at once; what is queued on it is dropped. A code of
        more than 64 characters is cut, and so is a message of more than 4096."""
        found = self._channels.for_intent(channel)
        if found is None:
            return
        values = {"code": frames.clean(code, MAX_CODE), "message": frames.clean(message)}
        frame = frames.encode_map(FrameType.RESET, channel, found.window.consumed, values)
        self._outbox.add_control(frame)
        self._channels.remove(found)

    def consume(self, channel: int, count: int) -> None:
        """`count` bytes more that came on the channel have reached their user."""
        found = self._channels.for_intent(channel)
        if found is None:
            return
        if found.window.consume(count):
            self._outbox.add_credit(found)
        self._channels.settle_receiving(found)

    def flush_consumed(self) -> None:
        """Acknowledge all that came, and report what was consumed since the last CREDIT; the
        driver calls it about once a second."""
        self._outbox.receipts.flush()
        for channel in self._channels:
            if channel.window.tick() and channel.receiving != "done":
                self._outbox.add_credit(channel)

    # Beside the channels

    def control(self, message: Mapping[str, object]) -> None:
        """Queue a control message. TooLarge or BadRequest for what it says, InsufficientResources
        when too many wait already."""
        self._check_control_room()
        self._outbox.add_control(frames.encode_map(FrameType.CONTROL, 0, 0, message))

    def ping(self, token: int) -> None:
        """Ask for a Pong of `token` (0 to 2**63 - 1); only the newest ping of a link waits."""
        if not 0 <= token <= frames.MAX_INTEGER:
            raise Internal(f"{token} is no token for a ping")
        self._outbox.add_ping(token)

    def _check_control_room(self) -> None:
        waiting = self._outbox.control_bytes
        if waiting > self._control_limit:
            raise InsufficientResources(
                f"{waiting} bytes of control messages wait for the peer",
                hint="the link is down or too slow; try again later",
            )
