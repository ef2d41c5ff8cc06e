"""Two multiplexers over links that delay, coalesce, break and come back, at random.

The machine does what users and networks do, in any order, and keeps a model of what was sent. After
every step credit and pools are sound; in the end, everything arrived once and in order.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)
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
LIMITS = Limits(pool=256 * 1024)
SIZES = st.sampled_from([0, 1, 100, 4000, MIN_WINDOW, MIN_WINDOW + 1, 70_000, 200_000])
ENDS = st.sampled_from([0, 1])
MAX_CHANNELS = 8


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
    """A channel as both users see it; `flows` and `reset_by` by the index of the sending end."""

    opener: int
    number: int
    accepted: bool = False
    accepted_came: bool = False
    opened_came: bool = False
    flows: tuple[Flow, Flow] = field(default_factory=lambda: (Flow(), Flow()))
    reset_by: set[int] = field(default_factory=set)
    reset_came: set[int] = field(default_factory=set)


def content(offset: int, size: int) -> bytes:
    """Bytes that tell their place."""
    start = offset % 251
    return (bytes(range(251)) * ((start + size) // 251 + 1))[start : start + size]


class LinkedSessions(RuleBasedStateMachine):
    channels = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.joined = Joined(LIMITS)
        self.pairs: dict[int, Pair] = {}
        self.controls: tuple[list[int], list[int]] = ([], [])
        self.controls_came: tuple[list[int], list[int]] = ([], [])

    def end(self, index: int) -> End:
        return self.joined.ends[index]

    # What users do

    @rule(target=channels, opener=ENDS)
    def open(self, opener: int) -> object:
        if len(self.pairs) >= MAX_CHANNELS:
            return multiple()
        number = self.end(opener).mux.open({"kind": "test", "opener": opener})
        assert number not in self.pairs, "a number was given twice"
        pair = Pair(opener, number)
        pair.flows[opener].open = True
        self.pairs[number] = pair
        return number

    @rule(number=channels)
    def accept(self, number: int) -> None:
        pair = self.pairs[number]
        acceptor = 1 - pair.opener
        if pair.opened_came and not pair.accepted and not pair.reset_by | pair.reset_came:
            self.end(acceptor).mux.accept(number, {"number": number})
            pair.accepted = True
            pair.flows[acceptor].open = True

    @rule(number=channels, sender=ENDS, size=SIZES, more=st.booleans())
    def send(self, number: int, sender: int, size: int, more: bool) -> None:
        pair = self.pairs[number]
        flow = pair.flows[sender]
        if not flow.open or flow.finished or len(flow.sent) > 400_000:
            return
        self.end(sender).mux.send(number, content(len(flow.sent), size), more=more)
        if pair.reset_by | pair.reset_came:
            return
        if size or (flow.message_begun and not more):
            flow.sent += content(len(flow.sent), size)
            flow.message_begun = more
            if not more:
                flow.ends_sent.append(len(flow.sent))

    @rule(number=channels, sender=ENDS)
    def finish(self, number: int, sender: int) -> None:
        flow = self.pairs[number].flows[sender]
        if flow.open:
            self.end(sender).mux.finish(number)
            flow.finished = True

    @rule(number=channels, sender=ENDS, chance=st.integers(0, 4))
    def reset(self, number: int, sender: int, chance: int) -> None:
        pair = self.pairs[number]
        if chance:
            return
        if sender != pair.opener and not pair.opened_came:
            return
        if number in self.end(sender).mux.channels():
            pair.reset_by.add(sender)
        self.end(sender).mux.reset(number, "TEST", "for a test")

    @rule(number=channels, sender=ENDS, share=st.sampled_from([0.1, 0.5, 1.0]))
    def consume(self, number: int, sender: int, share: float) -> None:
        pair = self.pairs[number]
        flow = pair.flows[sender]
        count = int((len(flow.came) - flow.consumed) * share + 0.999)
        if count:
            self.end(1 - sender).mux.consume(number, count)
            flow.consumed += count

    @rule(sender=ENDS)
    def control(self, sender: int) -> None:
        sent = self.controls[sender]
        sent.append(len(sent))
        self.end(sender).mux.control({"type": "test", "number": len(sent) - 1})

    @rule(sender=ENDS)
    def ping(self, sender: int) -> None:
        self.end(sender).mux.ping(7)

    @rule(sender=ENDS)
    def flush(self, sender: int) -> None:
        self.end(sender).mux.flush_consumed()

    # What the network does

    @rule(sender=ENDS, max_bytes=st.sampled_from([1, 1000, 65536, 500_000]))
    def take(self, sender: int, max_bytes: int) -> None:
        self.end(sender).take(max_bytes)

    @rule(sender=ENDS, joined=st.sampled_from([1, 1, 3]), count=st.integers(1, 8))
    def deliver(self, sender: int, joined: int, count: int) -> None:
        for _ in range(count):
            if self.end(sender).outgoing:
                self.note(1 - sender, self.joined.deliver(self.end(sender), joined=joined))

    @rule(sender=ENDS)
    def break_for_one(self, sender: int) -> None:
        """One side sees the end of the link at once; what the other sends is lost."""
        self.end(sender).mux.detach()
        for end in self.joined.ends:
            end.outgoing.clear()

    @rule(arriving=st.integers(0, 2))
    def lose_what_is_under_way(self, arriving: int) -> None:
        """A link breaks while both sides send; only the first messages of each arrive, the others
        not at all, or after their receiver gave the link up."""
        for index in (0, 1):
            self.end(index).take()
        for index in (0, 1):
            for _ in range(min(arriving, len(self.end(index).outgoing))):
                self.note(1 - index, self.joined.deliver(self.end(index)))
        late = [list(end.outgoing) for end in self.joined.ends]
        self.joined.cut()
        for index in (0, 1):
            for message in late[index]:
                assert self.end(1 - index).mux.receive(message) == []
        self.joined.join()

    @rule()
    def quieten(self) -> None:
        """Let the pipe run empty, as it does most of the time."""
        moved = True
        while moved:
            moved = False
            for index in (0, 1):
                self.end(index).take()
                while self.end(index).outgoing:
                    moved = True
                    self.note(1 - index, self.joined.deliver(self.end(index)))

    # What must hold

    def note(self, receiver: int, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Control):
                self.controls_came[1 - receiver].append(event.message["number"])
            elif isinstance(event, Pong):
                assert event.token == 7
            else:
                self.note_channel(receiver, event)

    def note_channel(self, receiver: int, event: Event) -> None:
        assert isinstance(event, Opened | Accepted | Data | Finished | Reset | Credited)
        pair = self.pairs[event.channel]
        came, own = pair.flows[1 - receiver], pair.flows[receiver]
        assert receiver not in pair.reset_by | pair.reset_came, "an event after the end"
        match event:
            case Opened(request=request):
                assert request["opener"] == pair.opener == 1 - receiver and not pair.opened_came
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

    @invariant()
    def windows_are_sound(self) -> None:
        for end in self.joined.ends:
            table = end.mux._channels
            grown = sum(channel.window.size - MIN_WINDOW for channel in table)
            assert table._pool.free + grown == table._pool.total
            assert table._pool.free >= 0
            for channel in table:
                assert channel.credit.available >= 0
                assert channel.window.consumed <= channel.window.received <= channel.window.limit

    def teardown(self) -> None:
        """Users that consume, and a link that stays after one that took everything with it:
        everything comes to its end."""
        self.joined.join()
        self.quieten()
        for number in self.pairs:
            for sender in (0, 1):
                self.consume(number, sender, 1.0)
        for end in self.joined.ends:
            end.mux.flush_consumed()
        self.lose_what_is_under_way(0)
        self.settle()
        for pair in self.pairs.values():
            if not pair.reset_by:
                self.check_arrived(pair)
        for index in (0, 1):
            assert self.controls_came[index] == self.controls[index]
        self.check_credit_is_back()
        self.close_everything()

    def settle(self) -> None:
        for _ in range(1000):
            self.quieten()
            before = self.progress()
            for number, pair in self.pairs.items():
                self.accept(number)
                for sender in (0, 1):
                    self.consume(number, sender, 1.0)
                self.check_both_know_of_a_reset(pair)
            for end in self.joined.ends:
                end.mux.flush_consumed()
            if not any(end.mux.has_outgoing for end in self.joined.ends):
                assert self.progress() == before
                return
        raise AssertionError("it never comes to rest")

    def check_both_know_of_a_reset(self, pair: Pair) -> None:
        for index in pair.reset_by:
            other = 1 - index
            # A side for which everything had come to a good end before keeps that end.
            mine, theirs = pair.flows[other], pair.flows[index]
            ended = mine.finished and theirs.finished_came
            knows = other in pair.reset_by | pair.reset_came
            assert knows or ended or not pair.opened_came

    def progress(self) -> list[tuple[int, int]]:
        return [
            (len(flow.came), flow.consumed) for pair in self.pairs.values() for flow in pair.flows
        ]

    def check_arrived(self, pair: Pair) -> None:
        assert pair.opened_came and pair.accepted_came and not pair.reset_came
        for flow in pair.flows:
            assert flow.came == flow.sent
            assert flow.ends_came == flow.ends_sent
            assert flow.finished_came is flow.finished
            assert flow.consumed_told == flow.consumed == len(flow.sent)

    def check_credit_is_back(self) -> None:
        for number, pair in self.pairs.items():
            for sender in (0, 1):
                if not pair.reset_by and not pair.flows[sender].finished:
                    assert self.end(sender).mux.sendable(number) >= MIN_WINDOW

    def close_everything(self) -> None:
        for number, pair in self.pairs.items():
            for sender in (0, 1):
                if not pair.reset_by:
                    self.finish(number, sender)
        self.settle()
        self.settle()
        for end in self.joined.ends:
            assert not end.mux.channels(), "a channel outlives its end"
            assert end.mux._channels._pool.free == LIMITS.pool
            assert end.mux._outbox.log.cost == 0, "frames are kept that were acknowledged"
            assert end.mux._outbox.control_bytes == 0


TestLinkedSessions = LinkedSessions.TestCase
TestLinkedSessions.settings = settings(stateful_step_count=120)
