from itertools import product

import pytest

from sth_protocol.errors import from_wire
from sth_protocol.lifecycle import (
    ENDED,
    EVENTS,
    STATES,
    TRANSITIONS,
    Event,
    InvalidTransition,
    Lifecycle,
    State,
)


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_lifecycle_follows_its_table_for_every_pair(state: State, event: Event) -> None:
    lifecycle = Lifecycle(state)
    following = TRANSITIONS.get((state, event))
    if following is None:
        with pytest.raises(InvalidTransition):
            lifecycle.apply(event)
        assert lifecycle.state == state
    else:
        assert lifecycle.apply(event) == lifecycle.state == following


def test_lifecycle_table_names_only_states_and_events() -> None:
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(STATES)
    assert {event for _, event in TRANSITIONS} == set(EVENTS)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_lifecycle_that_ended_stays_so(state: State) -> None:
    assert Lifecycle(state).ended
    assert not [pair for pair in TRANSITIONS if pair[0] == state]


@pytest.mark.parametrize("state", [each for each in STATES if each not in ENDED])
def test_lifecycle_can_end_from_every_state_when_the_machine_is_lost(state: State) -> None:
    assert Lifecycle(state).apply("lost") == "errored"
    assert not Lifecycle(state).ended


def test_lifecycle_never_goes_back() -> None:
    order = {state: place for place, state in enumerate(STATES)}
    for (state, _), following in TRANSITIONS.items():
        assert order[following] >= order[state]


def test_lifecycle_error_tells_the_story() -> None:
    lifecycle = Lifecycle()
    lifecycle.apply("placed")
    lifecycle.apply("ready")
    with pytest.raises(InvalidTransition) as caught:
        lifecycle.apply("placed")
    assert caught.value.message == (
        "an Instance that is running cannot placed "
        "(initializing -> placed: starting -> ready: running)"
    )
    assert isinstance(from_wire(caught.value.to_wire()), InvalidTransition)


def test_lifecycle_story_is_bounded() -> None:
    lifecycle = Lifecycle("stopping")
    for _ in range(1000):
        lifecycle.apply("stop")
    with pytest.raises(InvalidTransition) as caught:
        lifecycle.apply("placed")
    assert len(caught.value.message) < 1000
