"""The context that a program is given; `sth.Context` says what its members mean."""

import asyncio
import inspect
import json
import logging
from typing import Any

from sth.context import EventHandler, HealthCheck, StopHandler
from sth_sandbox.runners.python.control import Control
from sth_sandbox.runners.python.ending import Ending

_LARGEST_EVENT = 64 * 1024
_HEALTH_SECONDS = 1.0


class RunnerContext:
    """Implements `sth.Context` on the control socket."""

    def __init__(
        self,
        *,
        instance_id: str,
        config: dict[str, Any],
        logger: logging.Logger,
        control: Control,
        ending: Ending,
    ) -> None:
        self.config = config
        self.logger = logger
        self.instance_id = instance_id
        self._control = control
        self._ending = ending
        self._handlers: dict[str, list[EventHandler]] = {}
        self._stop_handlers: list[StopHandler] = []
        self._health_check: HealthCheck | None = None
        self._healthy: bool | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.kept_alive = False

    def on(self, name: str, handler: EventHandler) -> None:
        self._handlers.setdefault(name, []).append(handler)

    def emit(self, name: str, message: Any = None) -> None:
        if len(json.dumps(message)) > _LARGEST_EVENT:
            raise ValueError(f"the message of event {name!r} is larger than 64 KiB")
        self._control.send("event", name=name, message=message)

    async def keep_alive(self, seconds: float = 0) -> None:
        self.kept_alive = True
        self._control.send("alive", keepalive_ms=int(seconds * 1000))
        await asyncio.sleep(seconds)

    def set_stop_handler(self, handler: StopHandler) -> None:
        self._stop_handlers.append(handler)

    def set_health_check(self, check: HealthCheck) -> None:
        if self._health_check is None:
            self._keep(asyncio.get_running_loop().create_task(self._watch_health()))
        self._health_check = check

    def end(self) -> None:
        self._ending.complete()

    def destroy(self, error: BaseException | str | None = None) -> None:
        self._ending.fail(error)

    def deliver(self, name: str, message: Any) -> None:
        """Calls the program's handlers of an event. What they raise is logged."""
        for handler in self._handlers.get(name, ()):
            try:
                result = handler(message)
            except Exception:
                self.logger.exception("the handler of event %r failed", name)
            else:
                if inspect.iscoroutine(result):
                    self._keep(asyncio.get_running_loop().create_task(result))

    async def run_stop_handlers(self, seconds: float, can_keep_alive: bool) -> None:
        """What they raise is logged: an Instance is stopped whatever its handlers do."""
        for handler in self._stop_handlers:
            try:
                result = handler(*_accepted(handler, seconds, can_keep_alive))
                if inspect.isawaitable(result):
                    await result
            except Exception:
                self.logger.exception("a stop handler failed")

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """The event loop itself holds tasks weakly only."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_health(self) -> None:
        """Tells the agent when the answer changes: fifty idle Instances shall cost nothing."""
        while True:
            healthy = await self._ask_health()
            if healthy != self._healthy:
                self._healthy = healthy
                self._control.send("health", healthy=healthy)
            await asyncio.sleep(_HEALTH_SECONDS)

    async def _ask_health(self) -> bool:
        assert self._health_check is not None
        try:
            answer = self._health_check()
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception:
            self.logger.exception("the health check failed")
            return False
        return bool(answer.get("healthy", True)) if isinstance(answer, dict) else bool(answer)


def _accepted(handler: StopHandler, *offered: Any) -> tuple[Any, ...]:
    """As many of the arguments as the handler takes."""
    for count in range(len(offered), -1, -1):
        try:
            inspect.signature(handler).bind(*offered[:count])
        except TypeError:
            continue
        return offered[:count]
    return offered
