"""How an Instance ends: the first reason counts."""

import asyncio
from typing import Any

from sth_sandbox.runners import frames


class Interrupted(BaseException):
    """Unwinds a program that waits without the event loop, because its Instance ends."""


class Ending:
    """The exit code to come, and the error if there is one."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.error: BaseException | str | None = None
        self._decided: asyncio.Event = asyncio.Event()

    def complete(self) -> None:
        """The program wants no more."""
        self.decide(frames.EXIT_COMPLETED)

    def fail(self, error: BaseException | str | None) -> None:
        """The program says that it failed."""
        self.decide(frames.EXIT_FAILED, error or "the program ended itself as failed")

    def decide(self, code: int, error: BaseException | str | None = None) -> None:
        """Ends the Instance with this code, unless it ends already."""
        if self.code is None:
            self.code = code
            self.error = error
            self._decided.set()

    async def decided(self) -> Any:
        """Waits for one of the others to be called."""
        await self._decided.wait()
