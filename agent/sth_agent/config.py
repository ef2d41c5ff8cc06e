"""Where an agent keeps what is its own, and what may be set."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sth_agent.private_files import make_private_directory
from sth_protocol.errors import Conflict, Misconfigured

STATE_VARIABLE = "STH_AGENT_STATE"
TOKEN_VARIABLE = "STH_JOIN_TOKEN"
# Of root's agent; other users have theirs at home.
SYSTEM_STATE = Path("/var/lib/sth-agent")


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """One directory holds everything of one agent; two agents never share one."""

    path: Path

    @property
    def identity(self) -> Path:
        """Key, certificate and CA; written by `credentials` only."""
        return self.path / "identity"

    @property
    def instances(self) -> Path:
        """One file an Instance: what a successor of this process must know of it."""
        return self.path / "instances"

    @property
    def temporary(self) -> Path:
        """Packages on their way to the spawner, as files without a name."""
        return self.path / "temporary"

    @property
    def connection(self) -> Path:
        """The epoch and the addresses that the broker last told."""
        return self.path / "connection.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the agent for as long as it runs."""
        return self.path / "agent.lock"

    def create(self) -> None:
        """Make what is missing; Misconfigured if that is not possible."""
        try:
            for each in (self.path, self.identity, self.instances, self.temporary):
                make_private_directory(each)
        except OSError as error:
            raise Misconfigured(
                f"the state directory {self.path} cannot be used: {error.strerror}",
                hint="name another with --state DIR",
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory as its only agent; Conflict if another one does."""
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"an agent is already running with the state directory {self.path}",
                    hint="`sth-agent status` shows it",
                ) from None
            yield
        finally:
            os.close(descriptor)


def default_state_path(environment: Mapping[str, str]) -> Path:
    """$STH_AGENT_STATE; /var/lib/sth-agent for root; $XDG_STATE_HOME/sth-agent for others."""
    if named := environment.get(STATE_VARIABLE):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return SYSTEM_STATE
    base = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "sth-agent"
