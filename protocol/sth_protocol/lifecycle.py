"""The states of an Instance, as a table.

    initializing -> starting -> running -> stopping | killing -> completed | errored

The words are the original's. `lost` is an event, not a state: the machine no longer knows the
Instance, which ends as errored with that reason.
"""

from typing import Literal

from sth_protocol.errors import Conflict

State = Literal[
    "initializing", "starting", "running", "stopping", "killing", "completed", "errored"
]
Event = Literal["placed", "ready", "stop", "kill", "exited", "failed", "lost"]

# The longest time that a program may be given to stop.
MAX_STOP_MS = 24 * 3600 * 1000

STATES: tuple[State, ...] = (
    "initializing",
    "starting",
    "running",
    "stopping",
    "killing",
    "completed",
    "errored",
)
EVENTS: tuple[Event, ...] = ("placed", "ready", "stop", "kill", "exited", "failed", "lost")
ENDED: frozenset[State] = frozenset({"completed", "errored"})

# (state, event) -> next state. A pair that is not here is refused; ENDED states accept nothing.
TRANSITIONS: dict[tuple[State, Event], State] = {
    ("initializing", "placed"): "starting",
    ("initializing", "kill"): "killing",
    ("initializing", "failed"): "errored",
    ("initializing", "lost"): "errored",
    ("starting", "ready"): "running",
    ("starting", "stop"): "stopping",
    ("starting", "kill"): "killing",
    ("starting", "exited"): "completed",
    ("starting", "failed"): "errored",
    ("starting", "lost"): "errored",
    ("running", "stop"): "stopping",
    ("running", "kill"): "killing",
    ("running", "exited"): "completed",
    ("running", "failed"): "errored",
    ("running", "lost"): "errored",
    ("stopping", "stop"): "stopping",
    ("stopping", "kill"): "killing",
    ("stopping", "ready"): "stopping",
    ("stopping", "exited"): "completed",
    ("stopping", "failed"): "errored",
    ("stopping", "lost"): "errored",
    ("killing", "kill"): "killing",
    ("killing", "stop"): "killing",
    ("killing", "ready"): "killing",
    ("killing", "exited"): "completed",
    ("killing", "failed"): "errored",
    ("killing", "lost"): "errored",
}


class InvalidTransition(Conflict):
    """An event that the present state does not allow; it tells the story that led here."""

    code = "INVALID_TRANSITION"


class Lifecycle:
    """The state of one Instance, and the events that led to it (the last 16)."""

    def __init__(self, state: State = "initializing") -> None:
        self.state: State = state
        self._story: list[str] = [state]

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def apply(self, event: Event) -> State:
        """Move on; InvalidTransition if the table has no such pair."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            story = " -> ".join(self._story)
            raise InvalidTransition(f"an Instance that is {self.state} cannot {event} ({story})")
        self.state = following
        self._story = [*self._story, f"{event}: {following}"][-16:]
        return following
