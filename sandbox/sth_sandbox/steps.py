"""Names for the steps of setting up a sandbox, so that a failure says which one it was."""

import contextlib
from collections.abc import Iterator


class SetupFailed(Exception):
    """A step failed. `step`: its name; `reason`: what the system said."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.step = name
        self.reason = reason


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Errors of the system inside become SetupFailed with this name."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SetupFailed(name, str(error)) from error
