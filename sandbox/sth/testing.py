"""Runs a Sequence in a test, without a broker, a Hub or a process of its own.

from sth.testing import run
assert await run(main, [{"temp": 1}], factor=2) == [{"temp": 2}]
"""

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sth.context import EventHandler, HealthCheck, StopHandler
from sth.declaration import call
from sth.results import as_items


@dataclass(slots=True)
class TestContext:
    """A Context that records what the Sequence did with it."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    config: dict[str, Any] = field(default_factory=dict)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("sequence"))
    instance_id: str = "00000000-0000-4000-8000-000000000000"
    emitted: list[tuple[str, Any]] = field(default_factory=list)
    handlers: dict[str, list[EventHandler]] = field(default_factory=dict)
    stop_handlers: list[StopHandler] = field(default_factory=list)
    health_checks: list[HealthCheck] = field(default_factory=list)
    kept_alive: float = 0
    ended: bool = False
    error: BaseException | str | None = None

    def on(self, name: str, handler: EventHandler) -> None:
        self.handlers.setdefault(name, []).append(handler)

    def emit(self, name: str, message: Any = None) -> None:
        self.emitted.append((name, message))

    def send(self, name: str, message: Any = None) -> None:
        """Calls the handlers that the Sequence has set for an event."""
        for handler in self.handlers.get(name, ()):
            handler(message)

    async def keep_alive(self, seconds: float = 0) -> None:
        self.kept_alive += seconds

    def set_stop_handler(self, handler: StopHandler) -> None:
        self.stop_handlers.append(handler)

    def set_health_check(self, check: HealthCheck) -> None:
        self.health_checks.append(check)

    def end(self) -> None:
        self.ended = True

    def destroy(self, error: BaseException | str | None = None) -> None:
        self.ended = True
        self.error = error


class _Items:
    """A list as a Sequence's input: it can be iterated with and without `async`."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def __iter__(self) -> Iterator[Any]:
        return self._items

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._items:
            yield item

    async def read(self) -> Any:
        """The next item, None at the end."""
        return next(self._items, None)


async def run(
    function: Callable[..., Any],
    items: Iterable[Any] = (),
    *args: Any,
    context: TestContext | None = None,
    **named: Any,
) -> list[Any]:
    """Everything that the Sequence gives out for `items`.

    `args` are the Instance's arguments; `named` fill parameters by name, as `config` would.
    What the Sequence raises is raised here.
    """
    context = context or TestContext(config=dict(named))
    result = call(function, context, _Items(items), args, named)
    if inspect.isawaitable(result):
        result = await result
    found = as_items(result)
    if isinstance(found, Iterable):
        return list(found)
    return [item async for item in found]
