"""A model of two users on two multiplexers over links that delay, coalesce, break and come back.

It does what users and networks do, in any order that it is told, and remembers what was sent. Each
action does nothing where it makes no sense, so that any list of actions is a test. After every one,
`check` holds; `end_well` lets everything come to its end and looks at what arrived.
"""

from dataclasses import dataclass, field
from typing import Final

from tests.support.joined import End, Joined

from sth_protocol.events import (
    Accepted,
    Control,
    Credited,
    Data,
    Event,
    Finished,
    Opened,
    Pong,
    Reset,
)
from sth_protocol.mux import Limits
from sth_protocol.window import MIN_WINDOW

# A pool that a few channels exhaust.
LIMITS: Final = Limits(pool=256 * 1024)
MAX_CHANNELS: Final = 12
MAX_BYTES: Final = 600_000
SIZES: Final = (0, 1, 100, 4000, MIN_WINDOW, MIN_WINDOW + 1, 70_000, 200_000)
BOTH: Final = (0, 1)


@dataclass
class Flow:
    """One direction of a channel: what was sent, what came, and what is known of it."""

    sent: bytearray = field(default_factory=bytearray)
    came: bytearray = field(default_factory=bytearray)
    ends_sent: list[int] = field(default_factory=list)
    ends_came: list[int] = field(default_factory=list)
    open: bool = False
    message_begun: bool = False
    finished: bool = False
    finished_came: bool = False
    consumed: int = 0
    consumed_told: int = 0


@dataclass
class Pair:
    """A channel as both users see it. Ends are 0 and 1; `flows` by the end that sends."""

    opener: int
    number: int
    accepted: bool = False
    accepted_came: bool = False
    opened_came: bool = False
    flows: tuple[Flow, Flow] = field(default_factory=lambda: (Flow(), Flow()))
    reset_by: set[int] = field(default_factory=set)
    reset_came: set[int] = field(default_factory=set)

    @property
    def broken(self) -> bool:
        return bool(self.reset_by)


def content(offset: int, size: int) -> bytes:
    """Bytes that tell their place."""
    start = offset % 251
    return (bytes(range(251)) * ((start + size) // 251 + 1))[start : start + size]


class SessionModel:
    """`links`: how many there were; `lost`: messages that broken links took with them."""

    def __init__(self) -> None:
        self.joined = Joined(LIMITS)
        self.pairs: list[Pair] = []
        self.controls: tuple[list[int], list[int]] = ([], [])
        self.controls_came: tuple[list[int], list[int]] = ([], [])
        self.links = 1
        self.lost = 0

    def end(self, index: int) -> End:
        return self.joined.ends[index]

    @property
    def traffic(self) -> int:
        """Bytes that came, of all channels."""
        return sum(len(flow.came) for pair in self.pairs for flow in pair.flows)

    # What users do

    def open(self, opener: int) -> None:
        if len(self.end(opener).mux.channels()) >= MAX_CHANNELS:
            return
        number = self.end(opener).mux.open({"opener": opener})
        assert all(pair.number != number for pair in self.pairs), "a number was given twice"
        pair = Pair(opener, number)
        pair.flows[opener].open = True
        self.pairs.append(pair)

    def accept(self, pair: Pair) -> None:
        acceptor = 1 - pair.opener
        if pair.opened_came and not pair.accepted and not pair.reset_by | pair.reset_came:
            self.end(acceptor).mux.accept(pair.number, {"number": pair.number})
            pair.accepted = True
            pair.flows[acceptor].open = True

    def send(self, pair: Pair, sender: int, size: int, more: bool) -> None:
        flow = pair.flows[sender]
        if not flow.open or flow.finished or len(flow.sent) > MAX_BYTES:
            return
        self.end(sender).mux.send(pair.number, content(len(flow.sent), size), more=more)
        if pair.reset_by | pair.reset_came:
            return
        if size or (flow.message_begun and not more):
            flow.sent += content(len(flow.sent), size)
            flow.message_begun = more
            if not more:
                flow.ends_sent.append(len(flow.sent))

    def finish(self, pair: Pair, sender: int) -> None:
        flow = pair.flows[sender]
        if flow.open:
            self.end(sender).mux.finish(pair.number)
            flow.finished = True

    def reset(self, pair: Pair, sender: int) -> None:
        if sender != pair.opener and not pair.opened_came:
            return
        if pair.number in self.end(sender).mux.channels():
            pair.reset_by.add(sender)
        self.end(sender).mux.reset(pair.number, "TEST", "for a test")

    def consume(self, pair: Pair, sender: int, share: float) -> None:
        flow = pair.flows[sender]
        count = int((len(flow.came) - flow.consumed) * share + 0.999)
        if count:
            self.end(1 - sender).mux.consume(pair.number, count)
            flow.consumed += count

    def control(self, sender: int) -> None:
        sent = self.controls[sender]
        self.end(sender).mux.control({"type": "test", "number": len(sent)})
        sent.append(len(sent))

    def ping(self, sender: int) -> None:
        self.end(sender).mux.ping(7)

    def flush(self, sender: int) -> None:
        self.end(sender).mux.flush_consumed()

    # What the network does

    def take(self, sender: int, max_bytes: int) -> None:
        self.end(sender).take(max_bytes)

    def deliver(self, sender: int, count: int, *, joined: int = 1) -> None:
        for _ in range(count):
            if self.end(sender).outgoing:
                self.note(1 - sender, self.joined.deliver(self.end(sender), joined=joined))

    def break_for_one(self, sender: int) -> None:
        """One side sees the end of the link at once; what the other sends is lost."""
        self.end(sender).mux.detach()
        for end in self.joined.ends:
            self.lost += len(end.outgoing)
            end.outgoing.clear()

    def lose(self, arriving: int) -> None:
        """A link breaks while both sides send; only the first messages of each arrive, the others
        not at all, or after their receiver gave the link up."""
        for index in BOTH:
            self.end(index).take()
        for index in BOTH:
            self.deliver(index, arriving)
        late = [list(end.outgoing) for end in self.joined.ends]
        self.joined.cut()
        for index in BOTH:
            self.lost += len(late[index])
            for message in late[index]:
                assert self.end(1 - index).mux.receive(message) == []
        self.joined.join()
        self.links += 1

    def quieten(self) -> None:
        """Let the pipe run empty, as it does most of the time."""
        moved = True
        while moved:
            moved = False
            for index in BOTH:
                self.end(index).take()
                moved = moved or bool(self.end(index).outgoing)
                self.deliver(index, len(self.end(index).outgoing))

    # What must hold

    def note(self, receiver: int, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Control):
                self.controls_came[1 - receiver].append(event.message["number"])
            elif isinstance(event, Pong):
                assert event.token == 7
            else:
                self._note_channel(receiver, event)

    def _note_channel(self, receiver: int, event: Event) -> None:
        assert isinstance(event, Opened | Accepted | Data | Finished | Reset | Credited)
        [pair] = [each for each in self.pairs if each.number == event.channel]
        came, own = pair.flows[1 - receiver], pair.flows[receiver]
        assert receiver not in pair.reset_by | pair.reset_came, "an event after the end"
        match event:
            case Opened(request=request):
                assert request == {"opener": 1 - receiver} and not pair.opened_came
                pair.opened_came = True
            case Accepted(info=info):
                assert info == {"number": event.channel} and not pair.accepted_came
                pair.accepted_came = True
            case Data(data=data, more=more):
                assert not came.finished_came
                assert data == content(len(came.came), len(data))
                came.came += data
                if not more:
                    came.ends_came.append(len(came.came))
            case Finished():
                assert not came.finished_came and came.came == came.sent
                came.finished_came = True
            case Reset(code=code, consumed=consumed):
                assert code == "TEST" and consumed <= len(own.sent)
                pair.reset_came.add(receiver)
            case Credited(consumed=consumed):
                assert own.consumed_told <= consumed <= own.consumed
                own.consumed_told = consumed

    def check(self) -> None:
        """Credit is never negative, windows are kept, the pool is conserved."""
        for end in self.joined.ends:
            table = end.mux._channels
            grown = sum(channel.window.size - MIN_WINDOW for channel in table)
            assert table._pool.free + grown == table._pool.total
            assert table._pool.free >= 0
            for channel in table:
                assert channel.credit.available >= 0
                assert channel.window.consumed <= channel.window.received <= channel.window.limit

    def end_well(self) -> None:
        """Users that consume, and a link that stays after one that took everything with it."""
        self.joined.join()
        self.quieten()
        for pair in self.pairs:
            for sender in BOTH:
                self.consume(pair, sender, 1.0)
        for sender in BOTH:
            self.flush(sender)
        self.lose(0)
        self._settle()
        for pair in self.pairs:
            self._check_arrived(pair)
        assert self.controls_came == self.controls
        for pair in self.pairs:
            for sender in BOTH:
                self.finish(pair, sender)
        self._settle()
        self._settle()
        self._check_nothing_is_left()

    def _settle(self) -> None:
        for _ in range(1000):
            self.quieten()
            before = self._progress()
            for pair in self.pairs:
                self.accept(pair)
                for sender in BOTH:
                    self.consume(pair, sender, 1.0)
            for sender in BOTH:
                self.flush(sender)
            if not any(end.mux.has_outgoing for end in self.joined.ends):
                assert self._progress() == before
                return
        raise AssertionError("it never comes to rest")

    def _progress(self) -> list[tuple[int, int]]:
        return [(len(flow.came), flow.consumed) for pair in self.pairs for flow in pair.flows]

    def _check_arrived(self, pair: Pair) -> None:
        if pair.broken:
            self._check_both_know(pair)
            return
        assert pair.opened_came and pair.accepted_came and not pair.reset_came
        for index, flow in enumerate(pair.flows):
            assert flow.came == flow.sent
            assert flow.ends_came == flow.ends_sent
            assert flow.finished_came is flow.finished
            assert flow.consumed_told == flow.consumed == len(flow.sent)
            if not flow.finished:
                assert self.end(index).mux.sendable(pair.number) >= MIN_WINDOW

    def _check_both_know(self, pair: Pair) -> None:
        for index in pair.reset_by:
            other = 1 - index
            # A side for which everything had come to a good end before keeps that end.
            ended = pair.flows[other].finished and pair.flows[index].finished_came
            knows = other in pair.reset_by | pair.reset_came
            assert knows or ended or not pair.opened_came

    def _check_nothing_is_left(self) -> None:
        for end in self.joined.ends:
            assert not end.mux.channels(), "a channel outlives its end"
            assert end.mux._channels._pool.free == LIMITS.pool
            assert end.mux._outbox.log.cost == 0, "frames are kept that were acknowledged"
            assert end.mux._outbox.control_bytes == 0
