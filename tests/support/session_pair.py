"""An agent's session and a broker's multiplexer with nothing between them but memory."""

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from sth_agent.channels import Channel
from sth_agent.session import Session
from sth_protocol.errors import NotFound, SessionLost
from sth_protocol.events import (
    Accepted,
    Control,
    Credited,
    Data,
    Event,
    Finished,
    Opened,
    Reset,
)
from sth_protocol.mux import Mux, Side


@dataclass
class BrokerStream:
    """The broker's end of one channel. `consumes`: at once whatever comes."""

    pair: "SessionPair"
    number: int
    info: dict[str, Any] = field(default_factory=dict)
    consumes: bool = True
    is_accepted: bool = False
    is_finished: bool = False
    data: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    unconsumed: int = 0
    consumed_by_agent: int = 0
    reset: Reset | None = None
    _begun: bytes = b""

    def take(self, event: Data) -> None:
        self.data += event.data
        self._begun += event.data
        if not event.more:
            self.messages.append(self._begun)
            self._begun = b""
        self.unconsumed += len(event.data)
        if self.consumes:
            self.consume(self.unconsumed)

    def consume(self, count: int) -> None:
        self.unconsumed -= count
        self.pair.broker.consume(self.number, count)
        self.pair.wake()

    def send(self, data: bytes) -> None:
        self.pair.broker.send(self.number, data)
        self.pair.wake()

    def finish(self) -> None:
        self.pair.broker.finish(self.number)
        self.pair.wake()

    def break_off(self, code: str = "STREAM_FAILED") -> None:
        self.pair.broker.reset(self.number, code, "broken off by the test")
        self.pair.wake()


class SessionPair:
    """`agent` is a real session; `broker` the multiplexer at its other end. `serve` is called with
    every channel that the broker opens; `consumes` is how channels begin."""

    def __init__(self, *, consumes: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self._consumes = consumes
        self._is_awake = False
        self.broker = Mux(side=Side.BROKER)
        self.broker.attach(peer_received=0)
        self.agent = Session(os.urandom(16), self)
        self.agent.mux.attach(peer_received=0)
        self.agent.wake = self.wake
        self.streams: dict[int, BrokerStream] = {}
        self.opened_by_agent: list[BrokerStream] = []
        self.channels: list[Channel] = []
        self.told: list[dict[str, Any]] = []

    # What the session asks of its handler.

    def opened(self, channel: Channel) -> None:
        self.channels.append(channel)

    def request(self, kind: str, fields: dict[str, Any]) -> Awaitable[dict[str, Any]]:
        raise NotFound(f"no {kind}")

    def noticed(self, kind: str, fields: dict[str, Any]) -> None:
        raise AssertionError(kind)

    # What a test does.

    def open(self, **request: Any) -> tuple[BrokerStream, Channel]:
        """A channel that the broker opens, both ends of it."""
        number = self.broker.open(request)
        stream = BrokerStream(self, number, consumes=self._consumes)
        self.streams[number] = stream
        self.transfer()
        return stream, self.channels[-1]

    def accept(self, stream: BrokerStream, **info: Any) -> None:
        """Accept a channel that the agent opened."""
        self.broker.accept(stream.number, info)
        self.wake()

    def report(self) -> None:
        """What the drivers do about once a second."""
        self.broker.flush_consumed()
        self.agent.mux.flush_consumed()
        self.wake()

    def lose(self) -> None:
        """The session ends, as with a broker that starts anew."""
        self.agent.lose(SessionLost("lost by the test"))

    def wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_awake = False
        self.transfer()

    def transfer(self) -> None:
        """Carry everything over, both ways."""
        while not self.agent.lost and (self.agent.mux.has_outgoing or self.broker.has_outgoing):
            for message in self.agent.mux.take_outgoing():
                for event in self.broker.receive(message):
                    self._on_broker(event)
            for message in self.broker.take_outgoing():
                self.agent.receive(message)

    def _on_broker(self, event: Event) -> None:
        match event:
            case Opened(number, request):
                stream = BrokerStream(self, number, dict(request), consumes=self._consumes)
                self.streams[number] = stream
                self.opened_by_agent.append(stream)
            case Accepted(number, info):
                self.streams[number].is_accepted = True
                self.streams[number].info = info
            case Data(number):
                self.streams[number].take(event)
            case Finished(number):
                self.streams[number].is_finished = True
            case Credited(number, consumed):
                self.streams[number].consumed_by_agent = consumed
            case Reset(number):
                self.streams[number].reset = event
            case Control(message):
                self.told.append(message)
