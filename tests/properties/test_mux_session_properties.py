"""Two multiplexers over links that break and come back: everything arrives once and in order.

The state machine searches for short stories that break it; the storm is long and dense.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.properties.session_model import BOTH, MAX_CHANNELS, SIZES, Pair, SessionModel

ENDS = st.sampled_from(BOTH)
PLACES = st.integers(0, 3)
PORTIONS = (1, 1000, 65536, 500_000)
SHARES = (0.1, 0.5, 1.0)


class LinkedSessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = SessionModel()

    def pair(self, place: int) -> Pair:
        return self.model.pairs[place % len(self.model.pairs)]

    @initialize(openers=st.lists(ENDS, min_size=1, max_size=4), accepted=st.booleans())
    def begin(self, openers: list[int], accepted: bool) -> None:
        for opener in openers:
            self.model.open(opener)
        if accepted:
            self.model.quieten()
            for pair in self.model.pairs:
                self.model.accept(pair)

    @rule(opener=ENDS)
    def open(self, opener: int) -> None:
        self.model.open(opener)

    @rule(place=PLACES)
    def accept(self, place: int) -> None:
        self.model.accept(self.pair(place))

    @rule(place=PLACES, sender=ENDS, size=st.sampled_from(SIZES), more=st.booleans())
    def send(self, place: int, sender: int, size: int, more: bool) -> None:
        self.model.send(self.pair(place), sender, size, more)

    @rule(place=PLACES, sender=ENDS)
    def finish(self, place: int, sender: int) -> None:
        self.model.finish(self.pair(place), sender)

    @rule(place=PLACES, sender=ENDS)
    def reset(self, place: int, sender: int) -> None:
        self.model.reset(self.pair(place), sender)

    @rule(place=PLACES, sender=ENDS, share=st.sampled_from(SHARES))
    def consume(self, place: int, sender: int, share: float) -> None:
        self.model.consume(self.pair(place), sender, share)

    @rule(sender=ENDS)
    def control(self, sender: int) -> None:
        self.model.control(sender)

    @rule(sender=ENDS)
    def ping(self, sender: int) -> None:
        self.model.ping(sender)

    @rule(sender=ENDS)
    def flush(self, sender: int) -> None:
        self.model.flush(sender)

    @rule(sender=ENDS, max_bytes=st.sampled_from(PORTIONS))
    def take(self, sender: int, max_bytes: int) -> None:
        self.model.take(sender, max_bytes)

    @rule(sender=ENDS, count=st.integers(1, 8), joined=st.sampled_from([1, 3]))
    def deliver(self, sender: int, count: int, joined: int) -> None:
        self.model.deliver(sender, count, joined=joined)

    @rule(sender=ENDS)
    def break_for_one(self, sender: int) -> None:
        self.model.break_for_one(sender)

    @rule(arriving=st.integers(0, 2))
    def lose(self, arriving: int) -> None:
        self.model.lose(arriving)

    @rule()
    def quieten(self) -> None:
        self.model.quieten()

    @invariant()
    def check(self) -> None:
        self.model.check()

    def teardown(self) -> None:
        self.model.end_well()


TestLinkedSessions = LinkedSessions.TestCase
TestLinkedSessions.settings = settings(stateful_step_count=60)


def act(model: SessionModel, choice: random.Random) -> None:
    """One action, those that move data most often."""
    end = choice.choice(BOTH)
    pair = choice.choice(model.pairs[-MAX_CHANNELS:])
    match choice.choices(range(13), weights=(3, 9, 30, 2, 1, 25, 4, 1, 3, 25, 25, 1, 4))[0]:
        case 0:
            model.open(end)
        case 1:
            model.accept(pair)
        case 2:
            model.send(pair, end, choice.choice(SIZES), choice.random() < 0.3)
        case 3:
            model.finish(pair, end)
        case 4:
            model.reset(pair, end)
        case 5:
            model.consume(pair, end, choice.choice(SHARES))
        case 6:
            model.control(end)
        case 7:
            model.ping(end)
        case 8:
            model.flush(end)
        case 9:
            model.take(end, choice.choice(PORTIONS))
        case 10:
            model.deliver(end, choice.randint(1, 8), joined=choice.choice((1, 3)))
        case 11:
            model.break_for_one(end)
        case 12:
            model.lose(choice.randint(0, 2))


def is_enough(model: SessionModel) -> bool:
    """A storm that breaks no link under way, or carries little, proves little."""
    return model.links > 5 and model.lost > 5 and model.traffic > 500_000


@given(seed=st.integers(0, 2**32))
def test_sessions_survive_a_storm(seed: int) -> None:
    choice = random.Random(seed)
    model = SessionModel()
    model.open(choice.choice(BOTH))
    for step in range(10_000):
        act(model, choice)
        model.check()
        if step > 300 and is_enough(model):
            break
    else:
        raise AssertionError("too little happened")
    model.end_well()
