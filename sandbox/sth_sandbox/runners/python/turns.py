"""Turns for the event loop in a program that never waits, and what happens when one waits."""

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")

_TURN_SECONDS = 0.005


class Turns:
    """Gives the event loop a turn every 5 ms, so that control messages and other tasks are seen."""

    def __init__(self) -> None:
        self._due = 0.0

    async def give(self) -> None:
        """A turn, if it is time for one. Called once for each batch, never for each record."""
        if time.monotonic() >= self._due:
            await asyncio.sleep(0)
            self._due = time.monotonic() + _TURN_SECONDS


@types.coroutine
def calling_at_each_wait(
    coroutine: Coroutine[Any, Any, Result], before_waiting: Callable[[], None]
) -> Generator[Any, Any, Result]:
    """Runs `coroutine`, and calls `before_waiting` each time that it is about to wait.

    This is how a lone record leaves at once and a thousand leave together: the output is sent when
    the program waits, for whatever it waits, at no cost for a record.
    """
    resume: Callable[[Any], Any] = coroutine.send
    value: Any = None
    try:
        while True:
            try:
                awaited = resume(value)
            except StopIteration as finished:
                return finished.value  # type: ignore[no-any-return]
            before_waiting()
            try:
                value = yield awaited
                resume = coroutine.send
            except GeneratorExit:
                raise
            except BaseException as error:
                value = error
                resume = coroutine.throw
    finally:
        coroutine.close()
