"""What a Sequence is given to talk to its Hub."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

# Gets the seconds it may take, and whether it may ask for more time with keep_alive. A handler
# with one parameter gets the seconds only.
StopHandler = Callable[..., Awaitable[None] | None]
HealthCheck = Callable[[], Any]
EventHandler = Callable[[Any], Any]


class Context(Protocol):
    """The Instance that a Sequence runs as.

    `config` is what the Instance was started with; `logger` writes to the Instance's log;
    `instance_id` is a UUID.
    """

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def logger(self) -> logging.Logger: ...

    @property
    def instance_id(self) -> str: ...

    def on(self, name: str, handler: EventHandler) -> None:
        """Calls `handler(message)` for every event of that name sent to this Instance."""

    def emit(self, name: str, message: Any = None) -> None:
        """Sends an event. `message` is any JSON value. ValueError if it is larger than 64 KiB."""

    async def keep_alive(self, seconds: float = 0) -> None:
        """Asks to be left running for `seconds` although a stop was asked for, and waits so long.

        Only a stop that allows it is put off.
        """

    def set_stop_handler(self, handler: StopHandler) -> None:
        """`handler(seconds)` runs before the Instance is stopped; several run in turn."""

    def set_health_check(self, check: HealthCheck) -> None:
        """`check()` is called every second; it returns a bool or `{"healthy": bool}`."""

    def end(self) -> None:
        """Ends the Instance as completed. What was given out until then is sent."""

    def destroy(self, error: BaseException | str | None = None) -> None:
        """Ends the Instance as failed."""
