"""Two multiplexers joined by a pipe in memory, which a test can cut, drain and join again."""

from collections import deque
from collections.abc import Sequence

from sth_protocol import codec
from sth_protocol.events import Event
from sth_protocol.mux import DEFAULT_LIMITS, Limits, Mux, Side


def encode_frames(*values: Sequence[object]) -> bytes:
    """One message of raw frames, right or wrong."""
    return b"".join(codec.pack(list(each)) for each in values)


def decode_frames(messages: Sequence[bytes]) -> list[list[object]]:
    """The raw frames of messages."""
    return [frame for message in messages for frame in codec.unpack_all(message)]


class End:
    """One side: its multiplexer, what it sent that has not arrived, and the events that it saw."""

    def __init__(self, side: Side, limits: Limits) -> None:
        self.mux = Mux(side=side, limits=limits)
        self.outgoing: deque[bytes] = deque()
        self.events: list[Event] = []

    def take(self, max_bytes: int = 256 * 1024) -> None:
        """Put the next messages into the pipe."""
        promised = self.mux.has_outgoing
        messages = self.mux.take_outgoing(max_bytes)
        assert bool(messages) is promised, "has_outgoing and take_outgoing disagree"
        self.outgoing += messages


class Joined:
    """Both ends and the pipe between them."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.agent = End(Side.AGENT, limits)
        self.broker = End(Side.BROKER, limits)
        self.ends = (self.agent, self.broker)
        self.join()

    def other(self, end: End) -> End:
        return self.broker if end is self.agent else self.agent

    def join(self) -> None:
        """A new link; what was in the pipe of the old one is lost."""
        self.cut()
        counts = [end.mux.received for end in self.ends]
        self.agent.mux.attach(peer_received=counts[1])
        self.broker.mux.attach(peer_received=counts[0])

    def cut(self) -> None:
        for end in self.ends:
            end.mux.detach()
            end.outgoing.clear()

    def deliver(self, end: End, *, joined: int = 1) -> list[Event]:
        """Let the next messages that `end` sent arrive, `joined` of them as one."""
        count = min(joined, len(end.outgoing))
        message = b"".join(end.outgoing.popleft() for _ in range(count))
        receiver = self.other(end)
        events = receiver.mux.receive(message)
        receiver.events += events
        return events

    def pump(self) -> None:
        """Until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            for end in self.ends:
                end.take()
                while end.outgoing:
                    moved = True
                    self.deliver(end)

    def seen(self, end: End) -> list[Event]:
        """The events of one side since the last call."""
        events, end.events = end.events, []
        return events
