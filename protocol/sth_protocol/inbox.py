"""What frames do: every frame that came is checked against its channel's state and told as events.

Its only errors are ProtocolErrors. A frame for a channel that is over was on its way when it ended,
and is ignored.
"""

from collections.abc import Callable
from typing import Any, Final

from sth_protocol import frames
from sth_protocol.channels import ChannelTable, Limits
from sth_protocol.errors import BadFrame, BadHandshake, ChannelViolation, FlowControlViolated
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
from sth_protocol.frames import FrameType
from sth_protocol.outbox import Outbox
from sth_protocol.window import MAX_WINDOW, MIN_WINDOW


class Inbox:
    """Reads the messages of one end of a session."""

    __slots__ = ("_channels", "_control_limit", "_outbox")

    def __init__(self, *, channels: ChannelTable, outbox: Outbox, limits: Limits) -> None:
        self._channels = channels
        self._outbox = outbox
        # Our own users are refused at the limit, a peer that asks for more only well above it.
        self._control_limit = 2 * limits.control

    def receive(self, message: bytes) -> list[Event]:
        """The events of a message. ProtocolError at its first frame that breaks the rules."""
        events: list[Event] = []
        receipts = self._outbox.receipts
        for kind, number, arg, payload in frames.decode(message):
            if kind is FrameType.DATA:
                self._on_data(number, arg, payload, False, events)
            elif kind is FrameType.MORE:
                self._on_data(number, arg, payload, True, events)
            else:
                events += _HANDLERS[kind](self, number, arg, payload)
            if kind in frames.NUMBERED:
                receipts.received += 1
        receipts.note_bytes(len(message))
        return events

    def _on_data(
        self, number: int, offset: int, data: bytes, more: bool, events: list[Event]
    ) -> None:
        channel = self._channels.for_frame(number)
        if channel is not None:
            channel.receive(offset, data, more=more)
            events.append(Data(number, data, more))

    def _on_handshake(self, _number: int, _arg: int, _payload: bytes) -> list[Event]:
        raise BadHandshake("a handshake in the middle of a session")

    def _on_open(self, number: int, limit: int, payload: bytes) -> list[Event]:
        self._check_peer_reads()
        if not MIN_WINDOW <= limit <= MAX_WINDOW:
            raise FlowControlViolated(f"channel {number} opened with a credit of {limit}")
        request = frames.decode_map(payload)
        channel = self._channels.add_peers(number)
        channel.credit.raise_limit(limit)
        return [Opened(number, request)]

    def _on_accept(self, number: int, limit: int, payload: bytes) -> list[Event]:
        info = frames.decode_map(payload)
        channel = self._channels.for_frame(number)
        if channel is None:
            return []
        channel.receiving = channel.check_peer(channel.receiving, "accept")
        events: list[Event] = [Accepted(number, info)]
        if channel.credit.raise_limit(limit):
            self._outbox.add_data(channel)
            events.append(Credited(number, channel.credit.consumed))
        return events

    def _on_fin(self, number: int, offset: int, _payload: None) -> list[Event]:
        channel = self._channels.for_frame(number)
        if channel is None:
            return []
        channel.receiving = channel.check_peer(channel.receiving, "finish")
        channel.window.receive(offset, 0)
        self._channels.settle_receiving(channel)
        return [Finished(number)]

    def _on_reset(self, number: int, consumed: int, payload: bytes) -> list[Event]:
        code, message = _code_and_message(payload)
        channel = self._channels.for_frame(number)
        if channel is None:
            return []
        channel.credit.note_consumed(consumed)
        self._channels.remove(channel)
        return [Reset(number, code, message, consumed)]

    def _on_credit(self, number: int, limit: int, consumed: int) -> list[Event]:
        channel = self._channels.for_frame(number)
        if channel is None:
            return []
        channel.sending = channel.check_peer(channel.sending, "credit")
        consumed_more = channel.credit.note_consumed(consumed)
        granted_more = channel.credit.raise_limit(limit)
        if granted_more:
            self._outbox.add_data(channel)
        if consumed_more or granted_more:
            return [Credited(number, channel.credit.consumed)]
        return []

    def _on_done(self, number: int, offset: int, _payload: None) -> list[Event]:
        channel = self._channels.for_frame(number)
        if channel is None:
            return []
        channel.sending = channel.check_peer(channel.sending, "done")
        if offset != channel.credit.sent:
            raise ChannelViolation(
                f"channel {number}: done at offset {offset} of {channel.credit.sent}"
            )
        consumed_more = channel.credit.note_consumed(offset)
        self._channels.remove_if_over(channel)
        return [Credited(number, offset)] if consumed_more else []

    def _on_control(self, _number: int, _arg: int, payload: bytes) -> list[Event]:
        self._check_peer_reads()
        return [Control(frames.decode_map(payload))]

    def _check_peer_reads(self) -> None:
        """A peer that asks and asks but takes no answer would fill our memory."""
        waiting = self._outbox.control_bytes
        if waiting > self._control_limit:
            raise FlowControlViolated(f"{waiting} bytes of answers wait while more is asked")

    def _on_ack(self, _number: int, count: int, _payload: None) -> list[Event]:
        self._outbox.log.acknowledge(count)
        return []

    def _on_ping(self, _number: int, token: int, _payload: None) -> list[Event]:
        self._outbox.add_pong(token)
        return []

    def _on_pong(self, _number: int, token: int, _payload: None) -> list[Event]:
        return [Pong(token)]

    def _on_close(self, _number: int, _arg: int, payload: bytes) -> list[Event]:
        return [Closed(*_code_and_message(payload))]


def _code_and_message(payload: bytes) -> tuple[str, str]:
    values = frames.decode_map(payload)
    code, message = values.get("code"), values.get("message", "")
    if not isinstance(code, str) or not isinstance(message, str):
        raise BadFrame("a RESET or CLOSE has a code and a message, both words")
    return code, message


_HANDLERS: Final[dict[FrameType, Callable[[Inbox, int, int, Any], list[Event]]]] = {
    FrameType.HELLO: Inbox._on_handshake,
    FrameType.WELCOME: Inbox._on_handshake,
    FrameType.OPEN: Inbox._on_open,
    FrameType.ACCEPT: Inbox._on_accept,
    FrameType.FIN: Inbox._on_fin,
    FrameType.RESET: Inbox._on_reset,
    FrameType.CREDIT: Inbox._on_credit,
    FrameType.CONTROL: Inbox._on_control,
    FrameType.ACK: Inbox._on_ack,
    FrameType.PING: Inbox._on_ping,
    FrameType.PONG: Inbox._on_pong,
    FrameType.CLOSE: Inbox._on_close,
    FrameType.DONE: Inbox._on_done,
}
