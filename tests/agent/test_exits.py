"""What the end of a process means, as a table."""

import pytest

from sth_agent.exits import outcome
from sth_agent.spawner_client import Exit
from sth_protocol.lifecycle import STATES, TRANSITIONS, State


@pytest.mark.parametrize(
    ("ended", "state", "event", "code", "reason"),
    [
        (Exit(0, None, ""), "running", "exited", 0, "Instance completed"),
        (Exit(137, None, ""), "killing", "exited", 137, "Instance killed"),
        (Exit(138, None, ""), "stopping", "exited", 138, "Instance stopped"),
        (Exit(None, 9, ""), "killing", "exited", 137, "Instance killed"),
        (Exit(None, 9, ""), "stopping", "exited", 137, "Instance killed"),
        (Exit(None, 15, ""), "stopping", "exited", 138, "Instance stopped"),
        (Exit(None, 9, "gone"), "running", "failed", 137, "Ended by SIGKILL: gone"),
        (Exit(None, 11, ""), "running", "failed", 139, "Ended by SIGSEGV"),
        (Exit(None, 63, ""), "running", "failed", 191, "Ended by signal 63"),
        (Exit(21, None, ""), "starting", "failed", 21, "Bad entry point: why"),
        (Exit(22, None, ""), "starting", "failed", 22, "Failed on start: why"),
        (Exit(23, None, ""), "running", "failed", 23, "Failed during execution: why"),
        (Exit(7, None, ""), "running", "failed", 7, "Runner failed with exit code 7: why"),
        (Exit(None, None, "odd"), "running", "failed", 23, "Failed during execution: why"),
    ],
)
def test_exit_has_a_code_and_a_reason(
    ended: Exit, state: State, event: str, code: int, reason: str
) -> None:
    found = outcome(ended, state=state, error={"message": "why"})
    assert (found.event, found.exit_code, found.reason) == (event, code, reason)


def test_exit_without_a_word_of_the_runner_has_the_spawners() -> None:
    found = outcome(Exit(23, None, "the sandbox broke"), state="running", error={})
    assert found.reason == "Failed during execution: the sandbox broke"


@pytest.mark.parametrize("state", [each for each in STATES if (each, "exited") in TRANSITIONS])
def test_exit_is_allowed_in_every_state_of_a_process(state: State) -> None:
    for ended in (Exit(0, None, ""), Exit(None, 9, ""), Exit(23, None, "")):
        assert (state, outcome(ended, state=state, error={}).event) in TRANSITIONS
