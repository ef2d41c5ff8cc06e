"""One connected Hub: requests to it and channels with it, over one link after the other.

A HubLink is the broker's end of one session. While the link is broken everything waits; a new link
of the same session goes on where the last one stopped. When the session ends, every channel and
every request of it ends with an error.
"""

import asyncio
import logging
import random

from sth_broker.background import Background
from sth_broker.channel import Channel, Json
from sth_broker.handlers import Handlers
from sth_broker.link_socket import LinkSocket
from sth_protocol import control
from sth_protocol.control import Answer, Notice, Request, Requests
from sth_protocol.errors import (
    HubOffline,
    SthError,
    TimedOut,
)
from sth_protocol.errors import from_wire as error_from_wire
from sth_protocol.events import (
    Accepted,
    Closed,
    Control,
    Credited,
    Data,
    Event,
    Finished,
    Opened,
    Pong,
    Reset,
)
from sth_protocol.model import HubInfo
from sth_protocol.mux import Mux, Side

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
DEAD_SECONDS = 30.0
# For so long a broken link is a hiccup: new work waits for the next one. After that it is refused,
# while what was under way waits on.
HICCUP_SECONDS = 5.0
REQUEST_SECONDS = 30.0
# Taken from the multiplexer at a time, so that control frames overtake the rest.
_PUSH_BYTES = 64 * 1024


class HubLink:
    """`info`: what the machine says of itself; `boot`: the boot id of its agent; `epoch`: of its
    newest link; `rtt`: seconds from a ping to its answer, None before the first."""

    def __init__(
        self,
        *,
        hub_id: str,
        space: str,
        info: HubInfo,
        boot: bytes,
        handlers: "Handlers[HubLink]",
        background: Background,
    ) -> None:
        self.hub_id = hub_id
        self.space = space
        self.info = info
        self.boot = boot
        self.epoch = 0
        self.mux = Mux(side=Side.BROKER)
        self.rtt: float | None = None
        self._handlers = handlers
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._requests = Requests()
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._channels: dict[int, Channel] = {}
        self._handlers_running = 0
        self._socket: LinkSocket | None = None
        self._detached_at = self._loop.time()
        self._ended: SthError | None = None
        self._flush_scheduled = False
        self._draining: LinkSocket | None = None
        self._next_ping = 0.0

    # -- what its users ask --------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a link carries the session right now."""
        return self._socket is not None

    @property
    def available(self) -> bool:
        """Whether new work can be given to it: connected, or broken a moment ago."""
        if self._ended is not None:
            return False
        return self.connected or self.detached_for < HICCUP_SECONDS

    @property
    def detached_for(self) -> float:
        """Seconds since the last link broke; 0 while connected."""
        return 0.0 if self.connected else self._loop.time() - self._detached_at

    @property
    def remote(self) -> str:
        """The address that the agent dialled from; empty while it is not connected."""
        return self._socket.remote if self._socket is not None else ""

    @property
    def congested(self) -> bool:
        """Whether the agent's end takes less than there is to send."""
        return self._socket is not None and self._draining is self._socket

    def silent_for(self) -> float:
        """Seconds since any byte came over the link; 0 while it is not connected."""
        return self._socket.silent_for() if self._socket is not None else 0.0

    async def request(
        self, type: str, *, timeout: float = REQUEST_SECONDS, **fields: object
    ) -> Json:
        """The agent's answer to a control request, over a new link if this one breaks. The agent's
        error, TimedOut, HubOffline or SessionLost."""
        self._check_available()
        number, message = self._requests.request(type, **fields)
        answer: asyncio.Future[Json] = self._loop.create_future()
        self._answers[number] = answer
        try:
            self.mux.control(message)
            self.flush()
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise TimedOut(f"the Hub did not answer {type} within {timeout:g} s") from None
        finally:
            self._answers.pop(number, None)
            self._requests.forget(number)

    async def open(self, request: Json, *, timeout: float = REQUEST_SECONDS) -> Channel:
        """A channel that the agent has accepted. The error of its RESET, TimedOut, HubOffline or
        SessionLost."""
        self._check_available()
        number = self.mux.open(request)
        channel = Channel(self, number, dict(request), accepted=False)
        self._channels[number] = channel
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                await channel.wait_accepted()
        except TimeoutError:
            channel.reset(TimedOut.code, "it was not accepted in time")
            raise TimedOut(f"the Hub did not open the stream within {timeout:g} s") from None
        except asyncio.CancelledError:
            channel.reset(TimedOut.code, "nobody waits for it any more")
            raise
        return channel

    def notify(self, type: str, **fields: object) -> None:
        """Tell the agent something; there is no answer."""
        if self._ended is None:
            self.mux.control(control.notice(type, **fields))
            self.flush()

    def _check_available(self) -> None:
        if self._ended is not None:
            raise type(self._ended)(self._ended.message, hint=self._ended.hint)
        if not self.available:
            raise HubOffline(
                f"the Hub has not been connected for {self.detached_for:.0f} s",
                hint="what runs there goes on; try again when it is back",
            )

    # -- links ---------------------------------------------------------------------------------

    def carried_by(self, socket: LinkSocket) -> bool:
        """Whether that link is the one in use."""
        return self._socket is socket

    def attach(self, socket: LinkSocket, *, peer_received: int, epoch: int) -> LinkSocket | None:
        """Go on over `socket`, after WELCOME. The link that it takes the place of, to be closed."""
        replaced = self._socket
        if replaced is not None:
            self.mux.detach()
        self.mux.attach(peer_received=peer_received)
        self._socket = socket
        self.epoch = epoch
        self._next_ping = 0.0
        self.flush()
        return replaced

    def detach(self, socket: LinkSocket) -> None:
        """That link is gone. If another carries the session by now, nothing happens."""
        if self._socket is socket:
            self._socket = None
            self._detached_at = self._loop.time()
            self.mux.detach()

    def end(self, error: SthError) -> LinkSocket | None:
        """The session is over: everybody who waits gets `error`. The link that is to be closed."""
        socket, self._socket = self._socket, None
        if self._ended is not None:
            return socket
        self._ended = error
        self.mux.detach()
        for channel in list(self._channels.values()):
            channel.fail(error)
        self._channels.clear()
        for number in self._requests.abandon():
            answer = self._answers.get(number)
            if answer is not None and not answer.done():
                answer.set_exception(type(error)(error.message, hint=error.hint))
        return socket

    def tick(self, now: float) -> None:
        """What is due about once a second. `now`: the loop's time."""
        for number in [n for n in self._channels if n not in self.mux.channels()]:
            self.settle(self._channels[number])
        socket = self._socket
        if socket is None:
            return
        if self.silent_for() >= DEAD_SECONDS:
            logger.info("Hub %s: nothing came for %.0f s", self.hub_id, DEAD_SECONDS)
            socket.abort()
            return
        if now >= self._next_ping:
            self._next_ping = now + HEARTBEAT_SECONDS * random.uniform(0.8, 1.0)
            self.mux.ping(int(now * 1_000_000))
        self.mux.flush_consumed()
        self.push()

    # -- sending -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits at the end of this turn of the loop, so that what is written in one turn
        travels together."""
        if not self._flush_scheduled and self._socket is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self.push()

    def push(self) -> None:
        socket = self._socket
        if socket is None or self._draining is socket:
            return
        self._send_while_free(socket)
        if self.mux.has_outgoing:
            self._draining = socket
            self._background.start(self._drain(socket), name=f"link to {self.hub_id}")

    def _send_while_free(self, socket: LinkSocket) -> None:
        mux = self.mux
        while mux.has_outgoing and not socket.congested:
            for message in mux.take_outgoing(_PUSH_BYTES):
                socket.send(message)

    async def _drain(self, socket: LinkSocket) -> None:
        """The one writer while the socket is congested."""
        try:
            while self._socket is socket and self.mux.has_outgoing and await socket.drained():
                if self._socket is socket:
                    self._send_while_free(socket)
        finally:
            # A link that took this one's place may have a writer of its own by now.
            if self._draining is socket:
                self._draining = None

    # -- receiving -----------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """Dispatch a message of the link. ProtocolError: the session is over."""
        for event in self.mux.receive(message):
            if type(event) is Data:
                channel = self._channels.get(event.channel)
                if channel is not None:
                    channel.on_data(event.data, event.more)
            else:
                self._dispatch(event)
        if self.mux.has_outgoing:
            self.flush()

    def _dispatch(self, event: Event) -> None:
        match event:
            case Credited(number, consumed):
                if (channel := self._channels.get(number)) is not None:
                    channel.on_credited(consumed)
                    self.settle(channel)
            case Control(message):
                self._on_control(message)
            case Opened(number, request):
                self._on_opened(number, request)
            case Accepted(number, info):
                if (channel := self._channels.get(number)) is not None:
                    channel.on_accepted(info)
            case Finished(number):
                if (channel := self._channels.get(number)) is not None:
                    channel.on_finished()
                    self.settle(channel)
            case Reset(number, code, text, consumed):
                if (channel := self._channels.pop(number, None)) is not None:
                    channel.on_credited(consumed)
                    channel.fail(error_from_wire({"code": code, "message": text}))
            case Pong(token):
                self.rtt = max(0.0, self._loop.time() - token / 1_000_000)
            case Closed(code, text):
                logger.info("Hub %s closes its link: %s %s", self.hub_id, code, text)

    def settle(self, channel: Channel) -> None:
        """Forget the channel if it is over and all of it was consumed."""
        if channel.over and channel.number not in self.mux.channels():
            self._channels.pop(channel.number, None)

    def _on_control(self, message: Json) -> None:
        match control.parse(message):
            case Answer(number, result, error) as answer:
                if self._requests.settle(answer):
                    _settle(self._answers.get(number), result, error)
            case Request() as request:
                self._handlers.serve_request(self, request)
            case Notice() as notice:
                self._handlers.take_notice(self, notice)

    def _on_opened(self, number: int, request: Json) -> None:
        channel = Channel(self, number, request, accepted=False)
        self._channels[number] = channel
        self._handlers.serve_channel(self, channel)

    def reply(self, number: int, result: Json | SthError) -> None:
        """Answer a request of the agent. TooLarge if the result does not fit."""
        if self._ended is not None:
            return
        if isinstance(result, SthError):
            self.mux.control(control.failure(number, result))
        else:
            self.mux.control(control.reply(number, result))
        self.flush()


def _settle(answer: "asyncio.Future[Json] | None", result: Json, error: SthError | None) -> None:
    if answer is None or answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
