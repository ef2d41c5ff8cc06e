"""What the broker does when an agent asks: a handler for each kind of channel, request and notice.

A handler runs in a task of its own, so that the reader of a link only dispatches. Whatever it
raises becomes an answer with its code: nothing that an agent asks is left without one.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from sth_broker.background import Background
from sth_broker.channel import Channel, Json
from sth_protocol.control import Notice, Request
from sth_protocol.errors import (
    BadRequest,
    InsufficientResources,
    Internal,
    ProtocolError,
    SthError,
)

logger = logging.getLogger(__name__)

# A Hub that asks faster than it is answered is refused before it takes the broker's memory.
MAX_RUNNING = 4096


class Asker(Protocol):
    """What the handlers need of a link."""

    @property
    def hub_id(self) -> str: ...

    def reply(self, number: int, result: Json | SthError) -> None: ...


Link = TypeVar("Link", bound=Asker)


class Handlers(Generic[Link]):
    """By kind of channel, by type of request and of notice."""

    def __init__(self, background: Background) -> None:
        self.channels: dict[str, Callable[[Link, Channel], Awaitable[None]]] = {}
        self.requests: dict[str, Callable[[Link, Json], Awaitable[Json]]] = {}
        self.notices: dict[str, Callable[[Link, Json], None]] = {}
        self._background = background
        # By Hub.
        self._running: Counter[str] = Counter()

    def serve_channel(self, link: Link, channel: Channel) -> None:
        """Begin to serve a channel that the agent opened."""
        kind = channel.info.get("kind")
        if not isinstance(kind, str) or kind not in self.channels:
            channel.reset(BadRequest.code, f"the broker serves no channel '{str(kind)[:64]}'")
        elif self._running[link.hub_id] >= MAX_RUNNING:
            channel.reset(InsufficientResources.code, "too much is asked at once")
        else:
            self._run(link, self._channel(link, channel, self.channels[kind]), f"channel {kind}")

    def serve_request(self, link: Link, request: Request) -> None:
        """Begin to serve a request."""
        handler = self.requests.get(request.type)
        if handler is None:
            link.reply(request.id, BadRequest(f"the broker knows no request '{request.type}'"))
        elif self._running[link.hub_id] >= MAX_RUNNING:
            link.reply(request.id, InsufficientResources("too much is asked at once"))
        else:
            self._run(link, self._request(link, request, handler), request.type)

    def take_notice(self, link: Link, notice: Notice) -> None:
        """Hand a notice on. ProtocolError of its handler: the agent breaks the rules."""
        handler = self.notices.get(notice.type)
        if handler is None:
            # A newer agent may have more to tell.
            logger.debug("Hub %s: notice '%s' is not known", link.hub_id, notice.type)
            return
        try:
            handler(link, notice.fields)
        except ProtocolError:
            raise
        except Exception:
            logger.exception("Hub %s: notice '%s' was not dealt with", link.hub_id, notice.type)

    def _run(self, link: Link, work: Awaitable[None], what: str) -> None:
        self._background.start(self._counted(link.hub_id, work), name=f"{what} of {link.hub_id}")

    async def _counted(self, hub_id: str, work: Awaitable[None]) -> None:
        self._running[hub_id] += 1
        try:
            await work
        finally:
            self._running[hub_id] -= 1
            if not self._running[hub_id]:
                del self._running[hub_id]

    async def _channel(
        self, link: Link, channel: Channel, handler: Callable[[Link, Channel], Awaitable[None]]
    ) -> None:
        try:
            await handler(link, channel)
        except SthError as error:
            channel.reset(error.code, error.message)
        except Exception:
            logger.exception("Hub %s: channel %s failed", link.hub_id, channel.info.get("kind"))
            channel.reset(Internal.code, "the broker failed")
        finally:
            channel.abandon()

    async def _request(
        self, link: Link, request: Request, handler: Callable[[Link, Json], Awaitable[Json]]
    ) -> None:
        try:
            link.reply(request.id, await handler(link, request.fields))
        except SthError as error:
            link.reply(request.id, error)
        except Exception:
            logger.exception("Hub %s: request %s failed", link.hub_id, request.type)
            link.reply(request.id, Internal("the broker failed"))
