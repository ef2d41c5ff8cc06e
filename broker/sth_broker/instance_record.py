"""What the broker remembers of one Instance, and how a Hub's report changes it. Pure."""

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sth_protocol.lifecycle import ENDED, Event, Lifecycle, State
from sth_protocol.model import InstanceReport, Json, from_map, to_map

LOST_REASON = "lost: its Hub no longer knows it"

# How far an Instance has come. `completed` and `errored` are equally far, none follows the other.
_PROGRESS: dict[State, int] = {
    "initializing": 0,
    "starting": 1,
    "running": 2,
    "stopping": 3,
    "killing": 4,
    "completed": 5,
    "errored": 5,
}
_ARRIVAL: dict[State, Event] = {
    "starting": "placed",
    "running": "ready",
    "stopping": "stop",
    "killing": "kill",
    "completed": "exited",
    "errored": "failed",
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of a Sequence. `sequence`: its public JSON at the start, since the Sequence itself
    may go. Times in ms since 1970, 0: not yet. `exit_code` -1: none."""

    instance: str
    space: str
    hub: str
    hub_name: str
    sequence: Json
    created_ms: int
    state: State = "initializing"
    args: list[Any] = field(default_factory=list)
    config: Json = field(default_factory=dict)
    input_topic: str = ""
    output_topic: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    exit_code: int = -1
    reason: str = ""
    process_id: int = 0
    requires: Json = field(default_factory=dict)
    provides: Json = field(default_factory=dict)
    error: Json = field(default_factory=dict)
    sandbox: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its key among the records."""
        return record_key(self.space, self.instance)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def sequence_id(self) -> str:
        return str(self.sequence.get("id", ""))


def record_key(space: str, instance: str) -> str:
    return f"instance/{space}/{instance}"


def to_record(instance: Instance) -> Json:
    return to_map(instance)


def from_record(value: object) -> Instance:
    """BadFrame if the stored map is not one of ours."""
    return from_map(Instance, value)


def events_towards(state: State, reported: State) -> tuple[Event, ...]:
    """The events that lead from `state` to what a Hub reports; none if the report says nothing new
    (an older state, or anything after the end)."""
    if state in ENDED or _PROGRESS[reported] <= _PROGRESS[state]:
        return ()
    arrival = _ARRIVAL[reported]
    if state != "initializing" or arrival in ("placed", "kill", "failed"):
        return (arrival,)
    return ("placed", arrival)


def advance(instance: Instance, event: Event) -> Instance:
    """The Instance after `event`; InvalidTransition if its state does not allow it."""
    return dataclasses.replace(instance, state=Lifecycle(instance.state).apply(event))


def with_report(instance: Instance, report: InstanceReport, *, now_ms: int) -> Instance:
    """The Instance as its Hub now reports it."""
    events = events_towards(instance.state, report.state)
    if instance.ended or (not events and report.state != instance.state):
        return instance
    for event in events:
        instance = advance(instance, event)
    return dataclasses.replace(
        instance,
        started_ms=report.started_ms or instance.started_ms,
        ended_ms=(report.ended_ms or now_ms) if instance.ended else 0,
        exit_code=report.exit_code,
        reason=report.reason or instance.reason,
        process_id=report.process_id or instance.process_id,
        requires=report.requires or instance.requires,
        provides=report.provides or instance.provides,
        error=report.error or instance.error,
        sandbox=report.sandbox or instance.sandbox,
    )


def failed(instance: Instance, error: Json, *, reason: str, now_ms: int) -> Instance:
    """The Instance after something ended it that its Hub does not report."""
    return dataclasses.replace(
        advance(instance, "failed"), ended_ms=now_ms, reason=reason, error=error
    )


def lost(instance: Instance, *, now_ms: int) -> Instance:
    """The Instance after its Hub came back without it."""
    return dataclasses.replace(advance(instance, "lost"), ended_ms=now_ms, reason=LOST_REASON)


def adopted(
    report: InstanceReport, *, space: str, hub: str, hub_name: str, sequence: Json, now_ms: int
) -> Instance:
    """An Instance that a Hub runs and of which the broker has no record."""
    bare = Instance(
        instance=report.instance,
        space=space,
        hub=hub,
        hub_name=hub_name,
        sequence=sequence,
        created_ms=report.started_ms or now_ms,
    )
    return with_report(bare, report, now_ms=now_ms)


def public_json(instance: Instance) -> Json:
    """The Instance as the API shows it: the original's fields, then ours."""
    shown: Json = {
        "id": instance.instance,
        "appConfig": instance.config,
        "args": instance.args,
        "provides": instance.output_topic or str(instance.provides.get("provides") or ""),
        "requires": instance.input_topic or str(instance.requires.get("requires") or ""),
        "sequence": instance.sequence,
        "created": timestamp(instance.created_ms),
        "status": instance.state,
        "hub": instance.hub,
        "hubName": instance.hub_name,
    }
    if instance.started_ms:
        shown["started"] = timestamp(instance.started_ms)
    if instance.ended:
        shown["ended"] = timestamp(instance.ended_ms)
        shown["terminated"] = {"exitcode": instance.exit_code, "reason": instance.reason}
    if instance.process_id and not instance.ended:
        shown["processId"] = instance.process_id
    if instance.error:
        shown["error"] = instance.error
    if instance.sandbox:
        shown["sandbox"] = instance.sandbox
    return shown


def timestamp(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds, as JavaScript writes dates."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
