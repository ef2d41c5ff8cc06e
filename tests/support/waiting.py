"""Waiting for something that another process does, with a limit and a reason when it is missed."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

_INTERVAL_SECONDS = 0.02


def wait_for(what: str, probe: Callable[[], Value | None], *, seconds: float = 20.0) -> Value:
    """The first true value that `probe` returns; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(_INTERVAL_SECONDS)
