"""One link: a websocket and the session that it carries for a while.

There is one writer, `_flush`, which runs once in an iteration of the loop however many intents
there were, straight from a callback: no task stands between an Instance and the transport. The
reader only dispatches. The link tells a dead peer from a silent one, and its owner why it ended.
"""

import asyncio
import logging
import random
import ssl
from collections import deque

from sth_agent import websocket
from sth_agent.addresses import Address
from sth_agent.session import Session
from sth_agent.websocket import WebSocket
from sth_protocol import handshake
from sth_protocol.errors import (
    Internal,
    ProtocolError,
    SessionLost,
    SthError,
    TimedOut,
    Unreachable,
)
from sth_protocol.frames import DATA_CUT
from sth_protocol.handshake import Close, Hello, Welcome

logger = logging.getLogger(__name__)

PATH = "/v1/link"
WELCOME_TIMEOUT = 15.0
REPORT_INTERVAL = 1.0


class Link:
    """Made by `dial`; then `greet`, `carry`, and `wait_ended`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket: WebSocket | None = None
        self._session: Session | None = None
        # What came before a session is carried: the broker may go on right after its WELCOME.
        self._early: deque[bytes] = deque()
        self._spoken = asyncio.Event()
        self._ended: asyncio.Future[SthError] = self._loop.create_future()
        self._flush_scheduled = False
        self._report_timer: asyncio.TimerHandle | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat = 0.0
        self._heard = 0.0
        self._asked = 0.0
        self._pings = 0

    @classmethod
    async def dial(cls, address: Address, context: ssl.SSLContext) -> "Link":
        """An open websocket to this address; Unreachable, or what the broker answered."""
        link = cls()
        link._socket = await websocket.connect(address, PATH, context=context, receiver=link)
        return link

    async def greet(self, hello: Hello) -> Welcome:
        """Say HELLO; the broker's WELCOME, or the error with which it closes the link."""
        assert self._socket is not None
        self._socket.send(handshake.encode_hello(hello))
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT):
                await self._spoken.wait()
        except TimeoutError:
            raise TimedOut(
                f"the broker did not say WELCOME within {WELCOME_TIMEOUT:.0f} s"
            ) from None
        if not self._early:
            raise self._ended.result()
        answer = handshake.decode_answer(self._early.popleft())
        if isinstance(answer, Close):
            raise answer.error()
        return answer

    def carry(self, session: Session, *, heartbeat: float) -> None:
        """Carry a session whose multiplexer was attached. `heartbeat`: seconds between pings; a
        peer of which nothing came for twice as long is dead."""
        self._session = session
        session.wake = self.wake
        self._heartbeat = heartbeat
        self._heard = self._asked = self._loop.time()
        self._beat()
        while self._early and not self._ended.done():
            self._receive(self._early.popleft())
        self.wake()

    async def wait_ended(self) -> SthError:
        """Why the link ended."""
        return await self._ended

    def close(self, error: SthError) -> None:
        """End the link, and tell the broker why, after what can still be sent."""
        self._flush()
        self._end(error)
        if self._socket is not None:
            if not self._socket.congested:
                self._socket.send(handshake.encode_close(error.code, error.message))
            self._socket.close(error.code)

    def wake(self) -> None:
        """There is something to send."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    # -- what the websocket says ---------------------------------------------------------------

    def message_received(self, message: bytes) -> None:
        self._heard = self._loop.time()
        if self._ended.done():
            return
        if self._session is None:
            self._early.append(message)
            self._spoken.set()
            return
        self._receive(message)
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(REPORT_INTERVAL, self._report)

    def writable(self) -> None:
        self._flush()

    def closed(self, reason: str) -> None:
        self._end(Unreachable(reason))

    # -- work ----------------------------------------------------------------------------------

    def _receive(self, message: bytes) -> None:
        assert self._session is not None
        try:
            closed = self._session.receive(message)
        except ProtocolError as error:
            logger.error("the broker broke the rules of the wire: %s", error.message)
            self.close(error)
            # Events that followed in the same message are gone: the session cannot go on.
            self._session.lose(SessionLost(f"the broker broke the rules: {error.message}"))
            return
        except Exception:
            # A message that was dispatched by half: the session cannot go on.
            logger.exception("a message of the broker could not be dealt with")
            self.close(Internal("the agent failed"))
            self._session.lose(SessionLost("the agent failed"))
            return
        if closed is not None:
            self._end(Close(closed.code, closed.message).error())
            if self._socket is not None:
                self._socket.close()
        elif self._session.mux.has_outgoing:
            self.wake()

    def _flush(self) -> None:
        self._flush_scheduled = False
        session, socket = self._session, self._socket
        if session is None or socket is None or self._ended.done():
            return
        mux = session.mux
        while not socket.congested and mux.has_outgoing:
            for message in mux.take_outgoing(DATA_CUT):
                socket.send(message)

    def _report(self) -> None:
        self._report_timer = None
        if self._session is not None and not self._ended.done():
            self._session.mux.flush_consumed()
            self._flush()

    def _beat(self) -> None:
        now = self._loop.time()
        if now - self._heard > 2 * self._heartbeat:
            self._end(Unreachable(f"nothing came from the broker for {now - self._heard:.0f} s"))
            if self._socket is not None:
                self._socket.abort()
            return
        if self._session is not None and now - max(self._heard, self._asked) > self._heartbeat * (
            random.uniform(0.6, 0.9)
        ):
            self._asked = now
            self._pings += 1
            self._session.mux.ping(self._pings)
            self.wake()
        self._heartbeat_timer = self._loop.call_later(self._heartbeat / 4, self._beat)

    def _end(self, error: SthError) -> None:
        for timer in (self._report_timer, self._heartbeat_timer):
            if timer is not None:
                timer.cancel()
        if self._ended.done():
            return
        self._ended.set_result(error)
        self._spoken.set()
        if self._session is not None:
            self._session.wake = _ignore
            self._session.mux.detach()


def _ignore() -> None:
    """The next link sends what waits."""
