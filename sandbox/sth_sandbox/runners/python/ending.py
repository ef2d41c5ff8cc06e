"""How an Instance ends: the first reason counts."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from sth_sandbox.runners import frames


class Interrupted(BaseException):
    """Unwinds a program that waits without the event loop, because its Instance ends."""


class Ending:
    """The exit code to come, and the error if there is one."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.error: BaseException | str | None = None
        self._decided = asyncio.Event()
        self._killed = asyncio.Event()

    def complete(self) -> None:
        """The program wants no more."""
        self.decide(frames.EXIT_COMPLETED)

    def fail(self, error: BaseException | str | None) -> None:
        """The program says that it failed."""
        self.decide(frames.EXIT_FAILED, error or "the program ended itself as failed")

    def kill(self) -> None:
        """Ends the Instance now, whatever was decided before."""
        self.code = frames.EXIT_KILLED
        self.error = None
        self._decided.set()
        self._killed.set()

    def decide(self, code: int, error: BaseException | str | None = None) -> None:
        """Ends the Instance with this code, unless it ends already."""
        if self.code is None:
            self.code = code
            self.error = error
            self._decided.set()

    async def decided(self) -> None:
        """Waits until the Instance is to end."""
        await self._decided.wait()

    async def unless_killed(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work`, but no longer than until the Instance is killed."""
        working = asyncio.ensure_future(work)
        killed = asyncio.ensure_future(self._killed.wait())
        await asyncio.wait({working, killed}, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if working.done():
            working.result()
        else:
            working.cancel()
