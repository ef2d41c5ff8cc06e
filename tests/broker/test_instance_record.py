"""Records of Instances under every report that a Hub could make."""

import dataclasses

import pytest

from sth_broker.instance_record import (
    Instance,
    adopted,
    events_towards,
    failed,
    from_record,
    lost,
    public_json,
    timestamp,
    to_record,
    with_report,
)
from sth_protocol.errors import BadFrame
from sth_protocol.lifecycle import ENDED, STATES, Lifecycle, State
from sth_protocol.model import InstanceReport

NOW = 1_700_000_000_000


def instance(state: State = "starting") -> Instance:
    sequence = {"id": "s", "name": "n", "config": {}, "location": "STH"}
    return Instance("i", "default", "h", "hub", sequence, NOW, state=state)


def report(state: State) -> InstanceReport:
    return InstanceReport("i", "s", state, started_ms=NOW + 1, process_id=7)


@pytest.mark.parametrize("reported", STATES)
@pytest.mark.parametrize("state", STATES)
def test_events_towards_a_report_are_all_allowed_and_lead_there(
    state: State, reported: State
) -> None:
    lifecycle = Lifecycle(state)
    events = events_towards(state, reported)
    for event in events:
        lifecycle.apply(event)
    if events:
        assert lifecycle.state == reported
    elif state not in ENDED:
        assert STATES.index(reported) <= STATES.index(state)


@pytest.mark.parametrize("reported", STATES)
@pytest.mark.parametrize("state", STATES)
def test_with_report_never_goes_back_and_never_revives(state: State, reported: State) -> None:
    before = instance(state)
    after = with_report(before, report(reported), now_ms=NOW + 2)
    if state in ENDED:
        assert after == before
    else:
        assert min(STATES.index(after.state), 5) >= min(STATES.index(state), 5)
        assert (after.ended_ms == NOW + 2) == after.ended


def test_with_report_keeps_what_the_report_does_not_say() -> None:
    before = dataclasses.replace(instance("running"), provides={"topic": "t"}, started_ms=5)
    after = with_report(before, InstanceReport("i", "s", "completed"), now_ms=NOW)
    assert (after.provides, after.started_ms, after.ended_ms) == ({"topic": "t"}, 5, NOW)


def test_adopted_takes_over_whatever_state_the_hub_reports() -> None:
    for state in STATES:
        found = adopted(
            report(state), space="s", hub="h", hub_name="hub", sequence={"id": "s"}, now_ms=NOW
        )
        assert found.state == state
        assert found.created_ms == NOW + 1


def test_lost_and_failed_end_with_a_reason() -> None:
    gone = lost(instance("running"), now_ms=NOW)
    assert (gone.state, gone.ended_ms) == ("errored", NOW)
    assert "lost" in gone.reason
    broken = failed(instance("starting"), {"message": "m"}, reason="r", now_ms=NOW)
    assert (broken.state, broken.reason, broken.error) == ("errored", "r", {"message": "m"})


def test_record_survives_the_store() -> None:
    before = dataclasses.replace(instance("running"), args=[1, "a", None], config={"k": [1.5]})
    assert from_record(to_record(before)) == before
    with pytest.raises(BadFrame):
        from_record({**to_record(before), "state": "dancing"})


def test_public_json_has_the_fields_of_the_original() -> None:
    shown = public_json(dataclasses.replace(instance("running"), started_ms=NOW, input_topic="in"))
    assert shown["id"] == "i"
    assert shown["status"] == "running"
    assert shown["requires"] == "in"
    assert shown["created"] == "2023-11-14T22:13:20.000Z"
    assert "ended" not in shown
    ended = public_json(
        with_report(
            instance("running"),
            InstanceReport("i", "s", "errored", exit_code=23, reason="x", error={"message": "m"}),
            now_ms=NOW,
        )
    )
    assert ended["terminated"] == {"exitcode": 23, "reason": "x"}
    assert ended["error"] == {"message": "m"}


@pytest.mark.parametrize("milliseconds", [0, -1, 2**62, -(2**62)])
def test_timestamp_of_any_number_is_a_date(milliseconds: int) -> None:
    assert timestamp(milliseconds).endswith("Z")
