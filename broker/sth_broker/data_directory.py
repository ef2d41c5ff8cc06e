"""What is where in the broker's data directory, and that only one broker uses it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sth_broker.private_files import make_private_directory
from sth_protocol.errors import Conflict, Misconfigured


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Everything that one broker keeps."""

    path: Path

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def keys(self) -> Path:
        """Of the CA, of the agents' port, of the tokens."""
        return self.path / "keys"

    @property
    def audit(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def admin_token(self) -> Path:
        return self.path / "admin.token"

    @property
    def facts(self) -> Path:
        """Where the broker that runs can be reached."""
        return self.path / "broker.json"

    @property
    def hub(self) -> Path:
        """The state of the built-in Hub's agent."""
        return self.path / "hub"

    @property
    def hub_log(self) -> Path:
        return self.path / "hub.log"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the directory if it is missing, and keep others from using it meanwhile.
        Misconfigured, Conflict."""
        try:
            for each in (self.path, self.store, self.keys):
                make_private_directory(each)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                f"the data directory {self.path} cannot be used: {error.strerror}",
                hint="name another with --data DIR",
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"a broker already runs with the data directory {self.path}",
                    hint="stop it, or name another directory with --data DIR",
                ) from None
            yield
        finally:
            os.close(lock)
