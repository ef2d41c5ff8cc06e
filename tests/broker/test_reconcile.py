"""What follows from a Hub's list of its Instances."""

import pytest

from sth_broker.instance_record import Instance
from sth_broker.reconcile import (
    Adopt,
    Expire,
    Forget,
    Instruction,
    Kill,
    KillAgain,
    Lose,
    Update,
    reconcile,
)
from sth_protocol.lifecycle import State
from sth_protocol.model import InstanceReport


def record(name: str, *, hub: str = "h", state: State = "running") -> Instance:
    return Instance(name, "default", hub, hub, {"id": "s"}, 0, state=state)


def report(name: str, state: State = "running", *, sequence: str = "s") -> InstanceReport:
    return InstanceReport(name, sequence, state)


def decide(
    reports: list[InstanceReport],
    records: list[Instance],
    *,
    starting: frozenset[str] = frozenset(),
) -> list[Instruction]:
    return reconcile(
        hub="h",
        reports=reports,
        known={each.instance: each for each in records},
        sequences=frozenset({"s"}),
        starting=starting,
    )


def test_reconcile_updates_what_both_know() -> None:
    assert decide([report("a")], [record("a")]) == [Update(report("a"))]


def test_reconcile_loses_what_the_hub_does_not_know() -> None:
    assert decide([], [record("a")]) == [Lose("a")]


def test_reconcile_leaves_other_hubs_and_ended_ones_alone() -> None:
    assert decide([], [record("a", hub="other"), record("b", state="completed")]) == []


def test_reconcile_does_not_lose_what_is_just_being_started() -> None:
    assert decide([], [record("a", state="starting")], starting=frozenset({"a"})) == []


def test_reconcile_adopts_what_is_of_a_known_sequence() -> None:
    assert decide([report("a")], []) == [Adopt(report("a"))]
    ended = report("a", "completed")
    assert decide([ended], []) == [Adopt(ended), Expire("a")]


def test_reconcile_kills_what_belongs_to_nobody() -> None:
    assert decide([report("a", sequence="gone")], []) == [Kill("a")]
    assert decide([report("a", "errored", sequence="gone")], []) == [Forget("a")]


def test_reconcile_kills_what_is_another_hubs() -> None:
    assert decide([report("a")], [record("a", hub="other")]) == [Kill("a")]
    assert decide([report("a", "completed")], [record("a", hub="other")]) == [Forget("a")]


@pytest.mark.parametrize("state", ["running", "killing"])
def test_reconcile_repeats_an_order_to_kill_that_was_lost(state: State) -> None:
    records = [record("a", state="killing")]
    assert decide([report("a", state)], records) == [Update(report("a", state)), KillAgain("a")]
    assert decide([report("a", "completed")], records) == [Update(report("a", "completed"))]


def test_reconcile_kills_what_the_broker_holds_for_ended() -> None:
    assert decide([report("a")], [record("a", state="errored")]) == [Kill("a")]
    assert decide([report("a", "errored")], [record("a", state="errored")]) == [Expire("a")]
