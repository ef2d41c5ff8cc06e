"""One session with the broker: its channels, and the requests that wait for an answer.

A session outlives the links that carry it. It knows nothing of sockets: a link brings messages in
and takes them out of its multiplexer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from sth_agent.channels import Channel, ChannelUser
from sth_protocol import control
from sth_protocol.control import Answer, Notice, Request, Requests
from sth_protocol.errors import Internal, SessionLost, SthError, TimedOut, from_wire
from sth_protocol.events import (
    Accepted,
    Closed,
    Control,
    Credited,
    Data,
    Event,
    Finished,
    Opened,
    Reset,
)
from sth_protocol.mux import Mux, Side

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 60.0
# Channels that ended by themselves are forgotten in bulk: to look for them each time costs more.
_FORGET_EVERY = 64

Json = dict[str, Any]


class Handler(Protocol):
    """What the agent does for the broker."""

    def opened(self, channel: Channel) -> None:
        """The broker opened a channel: give it a user and accept it, or reset it."""

    def request(self, kind: str, fields: Json) -> Awaitable[Json]:
        """The result of a request; an SthError is its answer, too."""

    def noticed(self, kind: str, fields: Json) -> None:
        """The broker tells something."""


class Session:
    """`broker_boot`: the process of the broker that holds the other end; `wake`: set by the link
    that carries the session, called when there is something to send."""

    def __init__(self, broker_boot: bytes, handler: Handler) -> None:
        self.broker_boot = broker_boot
        self.mux = Mux(side=Side.AGENT)
        self.wake: Callable[[], None] = _nobody
        self.lost = False
        self._handler = handler
        self._channels: dict[int, Channel] = {}
        self._requests = Requests()
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, request: Mapping[str, object], user: ChannelUser) -> Channel:
        """A new channel; its user hears whether it is accepted."""
        if self.lost:
            raise SessionLost("the session with the broker is lost")
        channel = self._add(self.mux.open(request), request)
        channel.user = user
        self._wake()
        return channel

    def ask(self, kind: str, **fields: object) -> Awaitable[Json]:
        """Ask the broker, now; its error is raised when the answer is awaited, which has to be
        done. SessionLost when it cannot come any more, TimedOut after REQUEST_TIMEOUT."""
        if self.lost:
            raise SessionLost("the session with the broker is lost")
        number, message = self._requests.request(kind, **fields)
        try:
            self.mux.control(message)
        except SthError:
            self._requests.forget(number)
            raise
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._wake()
        return self._answered(kind, number, answer)

    async def _answered(self, kind: str, number: int, answer: asyncio.Future[Json]) -> Json:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await answer
        except TimeoutError:
            raise TimedOut(f"the broker did not answer to {kind}") from None
        finally:
            self._answers.pop(number, None)
            self._requests.forget(number)

    def notify(self, kind: str, **fields: object) -> None:
        """Tell the broker something; nothing if the session is lost."""
        if not self.lost:
            self.mux.control(control.notice(kind, **fields))
            self._wake()

    def receive(self, message: bytes) -> Closed | None:
        """Take in a message of the link; what the peer said if it ends the link with it.
        ProtocolError: the session cannot go on."""
        closed = None
        for event in self.mux.receive(message):
            if type(event) is Data:
                channel = self._channels.get(event.channel)
                if channel is not None:
                    try:
                        channel.user.received(event.data, event.more)
                    except Exception:
                        self._failed(channel)
            elif type(event) is Closed:
                closed = event
            else:
                self._dispatch(event)
        return closed

    def lose(self, error: SessionLost) -> None:
        """The session is over: every channel and every request ends with this error."""
        if self.lost:
            return
        self.lost = True
        self.mux.detach()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.lost = True
            user, channel.user = channel.user, ChannelUser()
            user.reset(error, None)
        self._requests.abandon()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        for task in self._tasks:
            task.cancel()

    # -- what the broker says ------------------------------------------------------------------

    def _dispatch(self, event: Event) -> None:
        match event:
            case Control(message):
                self._control(message)
            case Opened(number, request):
                self._add(number, request)
                self._tell(number, event)
            case Accepted(number) | Credited(number) | Finished(number) | Reset(number):
                self._tell(number, event)

    def _tell(self, number: int, event: Event) -> None:
        channel = self._channels.get(number)
        if channel is None:
            return
        try:
            match event:
                case Opened():
                    self._handler.opened(channel)
                case Accepted(_, info):
                    channel.user.accepted(info)
                case Credited(_, consumed):
                    channel.user.credited(consumed)
                case Finished():
                    channel.user.finished()
                case Reset(_, code, message, consumed):
                    del self._channels[number]
                    user, channel.user = channel.user, ChannelUser()
                    user.reset(from_wire({"code": code, "message": message}), consumed)
        except Exception:
            self._failed(channel)

    def _failed(self, channel: Channel) -> None:
        """The user of a channel has stumbled, perhaps over its program: that ends this channel, and
        neither the session nor the link."""
        logger.exception("channel %d (%.100r) failed", channel.number, channel.request)
        error = Internal("the agent failed at this stream")
        user = channel.user
        channel.reset(error)
        try:
            user.reset(error, None)
        except Exception:
            logger.exception("channel %d could not be ended", channel.number)

    def _control(self, message: Json) -> None:
        match control.parse(message):
            case Answer(number, result, error) as answer:
                self._requests.settle(answer)
                waiting = self._answers.get(number)
                if waiting is not None and not waiting.done():
                    if error is None:
                        waiting.set_result(result)
                    else:
                        waiting.set_exception(error)
            case Notice(kind, fields):
                self._handler.noticed(kind, fields)
            case Request(kind, number, fields):
                task = asyncio.get_running_loop().create_task(self._answer(kind, number, fields))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, kind: str, number: int, fields: Json) -> None:
        try:
            reply = control.reply(number, await self._handler.request(kind, fields))
        except SthError as error:
            reply = control.failure(number, error)
        except Exception:
            logger.exception("the request %s failed", kind)
            reply = control.failure(number, Internal(f"the agent failed at {kind}"))
        if not self.lost:
            self._reply(number, reply)
            self._wake()

    def _reply(self, number: int, reply: Json) -> None:
        try:
            self.mux.control(reply)
        except SthError as error:
            # Whoever asked must not wait for what will never come.
            logger.error("an answer cannot be sent: %s", error.message)
            self.mux.control(control.failure(number, error))

    def _add(self, number: int, request: Mapping[str, Any]) -> Channel:
        channel = Channel(self.mux, self._wake, number, request)
        self._channels[number] = channel
        if len(self._channels) > len(self.mux.channels()) + _FORGET_EVERY:
            alive = self.mux.channels()
            self._channels = {key: each for key, each in self._channels.items() if key in alive}
        return channel

    def _wake(self) -> None:
        self.wake()


def _nobody() -> None:
    """No link carries the session now: what is to be sent waits."""
