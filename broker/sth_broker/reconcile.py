"""What to do when a Hub says which Instances it has: a pure decision, carried out by instances."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sth_broker.instance_record import Instance
from sth_protocol.lifecycle import ENDED
from sth_protocol.model import InstanceReport


@dataclass(frozen=True, slots=True)
class Update:
    """The record takes over what the Hub reports."""

    report: InstanceReport


@dataclass(frozen=True, slots=True)
class Adopt:
    """The Hub runs an Instance of this Space of which there is no record: it gets one."""

    report: InstanceReport


@dataclass(frozen=True, slots=True)
class Lose:
    """The broker believed that it runs there; the Hub does not know it."""

    instance: str


@dataclass(frozen=True, slots=True)
class Kill:
    """It runs, and must not: the broker holds it for ended, for another Hub's, or for nobody's."""

    instance: str


@dataclass(frozen=True, slots=True)
class KillAgain:
    """It was to be killed, and the order, or its execution, was lost with the agent."""

    instance: str


@dataclass(frozen=True, slots=True)
class Expire:
    """It has ended on both sides: its streams may go when their time is over."""

    instance: str


@dataclass(frozen=True, slots=True)
class Forget:
    """It has ended there and belongs to nobody here."""

    instance: str


Instruction = Update | Adopt | Lose | Kill | KillAgain | Expire | Forget


def reconcile(
    *,
    hub: str,
    reports: Iterable[InstanceReport],
    known: Mapping[str, Instance],
    sequences: frozenset[str],
    starting: frozenset[str],
) -> list[Instruction]:
    """`known`: the records of the Hub's Space by id; `sequences`: the ids of its Sequences;
    `starting`: Instances whose start the Hub was asked for and has not answered, which it may not
    yet have known when it spoke."""
    instructions: list[Instruction] = []
    heard: set[str] = set()
    for report in reports:
        heard.add(report.instance)
        record = known.get(report.instance)
        instructions += decide(report, record, hub=hub, sequences=sequences)
        was_to_die = record is not None and record.hub == hub and record.state == "killing"
        if was_to_die and report.state not in ENDED:
            instructions.append(KillAgain(report.instance))
    for instance in known.values():
        mine = instance.hub == hub and not instance.ended
        if mine and instance.instance not in heard and instance.instance not in starting:
            instructions.append(Lose(instance.instance))
    return instructions


def decide(
    report: InstanceReport, record: Instance | None, *, hub: str, sequences: frozenset[str]
) -> list[Instruction]:
    """What to do about one report."""
    runs = report.state not in ENDED
    if record is None:
        if report.sequence in sequences:
            return [Adopt(report)] if runs else [Adopt(report), Expire(report.instance)]
        return [Kill(report.instance)] if runs else [Forget(report.instance)]
    if record.hub != hub:
        return [Kill(report.instance)] if runs else [Forget(report.instance)]
    if record.ended:
        return [Kill(report.instance)] if runs else [Expire(report.instance)]
    return [Update(report)]
