"""Work that goes on when the request that began it is gone, and that the broker waits for or ends
when it stops."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Background:
    """Keeps tasks alive and logs their failures."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Run `work`; a failure is logged."""
        task = self._keep(work, name)
        task.add_done_callback(_log_failure)

    async def shielded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which goes on if the caller is cancelled."""
        task = self._keep(work, "shielded")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def completed(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`; a caller who is cancelled leaves when it is done, not before."""
        task = self._keep(work, "completed")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            await asyncio.wait([task])
            raise

    async def close(self, *, grace: float = 1.0) -> None:
        """Wait for what runs, at most `grace` seconds, then cancel it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("%s failed: %s", task.get_name(), error)
