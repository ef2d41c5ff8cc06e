"""What the end of a process means for its Instance. Pure."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sth_agent.spawner_client import Exit
from sth_protocol.lifecycle import Event, State
from sth_sandbox.runners import frames

_ORDERED: frozenset[State] = frozenset({"stopping", "killing"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """`event`: for the lifecycle; `exit_code`: 128 and its number for a signal."""

    event: Event
    exit_code: int
    reason: str


def outcome(ended: Exit, *, state: State, error: Mapping[str, Any]) -> Outcome:
    """`state`: of the Instance until now; `error`: what its runner said last, if anything."""
    if ended.signal is not None:
        return _of_signal(ended.signal, ended.reason, state)
    code = ended.code if ended.code is not None else frames.EXIT_FAILED
    match code:
        case frames.EXIT_COMPLETED:
            return Outcome("exited", code, "Instance completed")
        case frames.EXIT_KILLED:
            return Outcome("exited", code, "Instance killed")
        case frames.EXIT_STOPPED:
            return Outcome("exited", code, "Instance stopped")
        case frames.EXIT_BAD_ENTRYPOINT:
            what = "Bad entry point"
        case frames.EXIT_FAILED_ON_START:
            what = "Failed on start"
        case frames.EXIT_FAILED:
            what = "Failed during execution"
        case _:
            what = f"Runner failed with exit code {code}"
    message = str(error.get("message") or ended.reason)
    return Outcome("failed", code, f"{what}: {message}" if message else what)


def _of_signal(number: int, reason: str, state: State) -> Outcome:
    if number == signal.SIGKILL and state in _ORDERED:
        return Outcome("exited", frames.EXIT_KILLED, "Instance killed")
    if number == signal.SIGTERM and state in _ORDERED:
        return Outcome("exited", frames.EXIT_STOPPED, "Instance stopped")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return Outcome("failed", 128 + number, f"Ended by {name}" + (f": {reason}" if reason else ""))
