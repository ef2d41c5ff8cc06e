"""What a new process does to itself, as a list that its parent prepares.

A child of the zygote shares its parent's memory until one of them writes to it, and running Python
code writes: every function that runs costs a page or two in each Instance for good. So the parent
works out every call with its arguments, and the child only walks along the list.
"""

import ctypes
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class SetupFailed(Exception):
    """A step of the set-up failed. `step`: its name; `reason`: what the system said."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Action(NamedTuple):
    """One call. It raises OSError, or is a C function that returns a negative number."""

    step: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]


def perform(actions: Iterable[Action]) -> None:
    """Do them all in order; SetupFailed at the first that fails."""
    for step, call, arguments in actions:
        try:
            result = call(*arguments)
        except OSError as error:
            raise SetupFailed(step, str(error)) from error
        if result is not None and result < 0:
            number = ctypes.get_errno()
            name = getattr(call, "__name__", "call")
            raise SetupFailed(step, f"{name}{_readable(arguments)}: {os.strerror(number)}")


def write_file(path: str, data: bytes) -> None:
    """Make a file, or write to one of /proc; as an action's call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _readable(arguments: tuple[Any, ...]) -> str:
    parts = [each.decode(errors="replace") for each in arguments if isinstance(each, bytes)]
    return f" {' '.join(part for part in parts if part.isprintable())}".rstrip()
