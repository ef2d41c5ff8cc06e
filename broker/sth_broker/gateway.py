"""The broker's end of all links: who is connected, and over which link each session goes on.

One session a Hub. Its newest link, by epoch, wins at once; a link that breaks may come back for
`resume_seconds`, after which everything that waited for it ends with HUB_OFFLINE.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from sth_broker.background import Background
from sth_broker.channel import Channel, Json
from sth_broker.handlers import Handlers
from sth_broker.hub_link import HEARTBEAT_SECONDS, HubLink
from sth_broker.link_socket import LinkSocket
from sth_protocol import handshake
from sth_protocol.errors import (
    BadHandshake,
    HubOffline,
    InsufficientResources,
    Internal,
    LinkReplaced,
    ProtocolError,
    Revoked,
    SessionLost,
    SthError,
)
from sth_protocol.handshake import Hello, Welcome
from sth_protocol.session import Fresh, HeldSession, Refuse, Resume, decide_resume

logger = logging.getLogger(__name__)

RESUME_SECONDS = 60.0
HELLO_SECONDS = 10.0
TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a client certificate has shown to be there."""

    hub_id: str
    space: str
    name: str


Admission = Callable[[Hello], Awaitable[None]]


class Gateway:
    """`addresses`: what agents are told to dial. `start` it, and `close` it at the end."""

    def __init__(
        self, *, addresses: Sequence[str] = (), resume_seconds: float = RESUME_SECONDS
    ) -> None:
        self.boot = secrets.token_bytes(handshake.BOOT_BYTES)
        self._addresses = list(addresses)
        self._resume_seconds = resume_seconds
        self._background = Background()
        self._handlers: Handlers[HubLink] = Handlers(self._background)
        self._links: dict[str, HubLink] = {}
        self._revoked: set[str] = set()
        self._online: list[Callable[[HubLink], None]] = []
        self._offline: list[Callable[[HubLink], None]] = []
        self._ticker: asyncio.Task[None] | None = None

    # -- for its users -------------------------------------------------------------------------

    def hub(self, hub_id: str) -> HubLink | None:
        """The Hub's link; None if it is offline. A link that broke a moment ago still counts."""
        link = self._links.get(hub_id)
        return link if link is not None and link.available else None

    def links(self) -> list[HubLink]:
        """All sessions, those included whose link is broken for now."""
        return list(self._links.values())

    def on_channel(self, kind: str, handler: Callable[[HubLink, Channel], Awaitable[None]]) -> None:
        """Who serves channels of that kind that agents open. When the handler returns, the channel
        is finished; what it raises becomes a RESET."""
        self._handlers.channels[kind] = handler

    def on_request(self, type: str, handler: Callable[[HubLink, Json], Awaitable[Json]]) -> None:
        """Who answers requests of that type; what the handler raises becomes the answer."""
        self._handlers.requests[type] = handler

    def on_notify(self, type: str, handler: Callable[[HubLink, Json], None]) -> None:
        """Who takes notices of that type. A ProtocolError that it raises closes the link."""
        self._handlers.notices[type] = handler

    def on_online(self, handler: Callable[[HubLink], None]) -> None:
        """`handler(link)` at the start of every session, before anything of it is dispatched."""
        self._online.append(handler)

    def on_offline(self, handler: Callable[[HubLink], None]) -> None:
        """`handler(link)` at the end of every session."""
        self._offline.append(handler)

    def start(self) -> None:
        """Begin to look after the links."""
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="gateway")

    async def close(self) -> None:
        """End all sessions and their links: the broker stops."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        error = HubOffline("the broker stops", hint="what runs on the Hub goes on")
        for link in self.links():
            self._end(link, error)
        await self._background.close(grace=5.0)

    def cut(self, hub_id: str) -> None:
        """End the Hub's session because it is revoked, and let no other begin."""
        self._revoked.add(hub_id)
        link = self._links.get(hub_id)
        if link is not None:
            try:
                link.notify("hub.revoked")
                link.push()
            except InsufficientResources:
                # One that reads nothing is not told, and cut all the same.
                logger.info("Hub %s cannot be told that it is revoked", hub_id)
            self._end(link, Revoked("this Hub was revoked"))

    # -- links ---------------------------------------------------------------------------------

    async def serve(
        self, request: web.Request, peer: Peer, admit: Admission
    ) -> web.WebSocketResponse:
        """Serve one link to its end. `admit` is asked when HELLO has come, and raises the error
        that refuses it."""
        socket = await LinkSocket.upgrade(request)
        try:
            link = await self._welcome(socket, peer, admit)
        except SthError as error:
            logger.warning("Hub %s (%s) is refused: %s", peer.name, socket.remote, error)
            _say_close(socket, error)
        else:
            await self._read(link, socket)
        finally:
            await socket.close()
        return socket.response

    async def _welcome(self, socket: LinkSocket, peer: Peer, admit: Admission) -> HubLink:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = await socket.receive()
        except TimeoutError:
            raise BadHandshake(f"no HELLO within {HELLO_SECONDS:g} s") from None
        if message is None:
            raise BadHandshake("the link ended before its HELLO")
        hello = handshake.decode_hello(message)
        agreed = handshake.negotiate(hello)
        await admit(hello)
        # From here to the end nothing waits: what was decided holds.
        if peer.hub_id in self._revoked:
            raise Revoked("this Hub was revoked")
        link, resumed = self._session(peer, hello)
        welcome = Welcome(
            version=agreed.version,
            features=sorted(agreed.features),
            broker_boot=self.boot,
            resumed=resumed,
            received=link.mux.received,
            time_ms=int(time.time() * 1000),
            heartbeat_ms=int(HEARTBEAT_SECONDS * 1000),
            hub=peer.hub_id,
            space=peer.space,
            addresses=self._addresses,
        )
        socket.send(handshake.encode_welcome(welcome))
        replaced = link.attach(
            socket, peer_received=hello.received if resumed else 0, epoch=hello.epoch
        )
        if replaced is not None:
            self._dismiss(replaced, LinkReplaced("a newer connection of this Hub took its place"))
        what = "is back" if resumed else "is connected"
        logger.info("Hub %s %s from %s", peer.name, what, socket.remote)
        return link

    def _session(self, peer: Peer, hello: Hello) -> tuple[HubLink, bool]:
        """The session that the link is to carry, and whether it was held."""
        held = self._links.get(peer.hub_id)
        match decide_resume(self._held(held), hello):
            case Refuse(error):
                raise error
            case Resume() if held is not None:
                held.info = hello.hub
                return held, True
            case Fresh(lost) if held is not None:
                self._end(held, lost or SessionLost("the Hub began a new session"))
        link = HubLink(
            hub_id=peer.hub_id,
            space=peer.space,
            info=hello.hub,
            boot=hello.agent_boot,
            handlers=self._handlers,
            background=self._background,
        )
        self._links[peer.hub_id] = link
        for handler in self._online:
            handler(link)
        return link, False

    def _held(self, link: HubLink | None) -> HeldSession | None:
        if link is None:
            return None
        return HeldSession(
            agent_boot=link.boot,
            broker_boot=self.boot,
            epoch=link.epoch,
            resumable=link.mux.resumable,
        )

    async def _read(self, link: HubLink, socket: LinkSocket) -> None:
        try:
            while (message := await socket.receive()) is not None and link.carried_by(socket):
                link.receive(message)
        except ProtocolError as error:
            logger.warning("Hub %s (%s) breaks the wire: %s", link.hub_id, socket.remote, error)
            self._end(link, error)
        except Exception:
            # A message that was dispatched by half: the session cannot go on.
            logger.exception("Hub %s: a message could not be dealt with", link.hub_id)
            self._end(link, Internal("the broker failed"))
        finally:
            link.detach(socket)

    def _end(self, link: HubLink, error: SthError) -> None:
        if self._links.get(link.hub_id) is link:
            del self._links[link.hub_id]
        socket = link.end(error)
        if socket is not None:
            self._dismiss(socket, error)
        for handler in self._offline:
            handler(link)

    def _dismiss(self, socket: LinkSocket, error: SthError) -> None:
        _say_close(socket, error)
        self._background.start(socket.close(), name=f"close the link of {socket.remote}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for link in self.links():
                try:
                    link.tick(loop.time())
                    if link.detached_for > self._resume_seconds:
                        logger.info("Hub %s is offline", link.hub_id)
                        self._end(link, HubOffline("the Hub did not come back"))
                except Exception:
                    logger.exception("Hub %s: its link cannot be looked after", link.hub_id)


def _say_close(socket: LinkSocket, error: SthError) -> None:
    socket.send(handshake.encode_close(error.code, error.message))


__all__ = ["Gateway", "HubLink", "Peer"]
