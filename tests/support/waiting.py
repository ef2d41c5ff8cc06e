"""Waiting for something that another process does, with a limit and a reason when it is missed."""

import asyncio
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


async def until(what: str, condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Return when `condition` holds, in a process that runs on the same loop as the test."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nothing tells when it comes to hold
                await asyncio.sleep(_INTERVAL_SECONDS / 4)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds} s") from None
