"""A broker's channels joined to an agent's multiplexer by two real multiplexers in one process."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sth_broker.channel import Channel
from sth_protocol.errors import StreamFailed
from sth_protocol.events import Accepted, Credited, Data, Event, Finished, Opened, Reset
from sth_protocol.mux import Mux, Side

WAIT_SECONDS = 10.0


@dataclass
class AgentStream:
    """The agent's end of one channel. `messages`: whole ones that came; `consumes`: whether they
    count as consumed at once."""

    pair: "ChannelPair"
    number: int
    info: dict[str, Any] | None = None
    messages: list[bytes] = field(default_factory=list)
    finished: bool = False
    reset: str = ""
    consumes: bool = True
    unconsumed: int = 0
    pieces: bytes = b""

    async def send(self, data: bytes) -> None:
        """One message, cut as credit allows."""
        self.pair.agent.send(self.number, data)
        self.pair.flush()

    async def finish(self) -> None:
        self.pair.agent.finish(self.number)
        self.pair.flush()

    async def break_off(self) -> None:
        self.pair.agent.reset(self.number, "STREAM_FAILED", "")
        self.pair.flush()

    async def consume_all(self) -> None:
        """Consume what came, and from now on at once."""
        self.consumes = True
        self.pair.agent.consume(self.number, self.unconsumed)
        self.unconsumed = 0
        self.pair.agent.flush_consumed()
        self.pair.flush()

    async def until(self, holds: Callable[["AgentStream"], object]) -> None:
        """Wait until `holds` gives something true of this end."""
        async with asyncio.timeout(WAIT_SECONDS), self.pair.moved:
            await self.pair.moved.wait_for(lambda: holds(self))


class ChannelPair:
    """`link`: what handlers get beside a channel. The broker's end is a Session of Channel."""

    def __init__(self, space: str = "default") -> None:
        self.space = space
        self.mux = Mux(side=Side.BROKER)
        self.agent = Mux(side=Side.AGENT)
        self.mux.attach(peer_received=0)
        self.agent.attach(peer_received=0)
        self.moved = asyncio.Condition()
        self._channels: dict[int, Channel] = {}
        self._streams: dict[int, AgentStream] = {}
        self._opened: asyncio.Queue[Channel] = asyncio.Queue()
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, request: Mapping[str, object]) -> tuple[AgentStream, Channel]:
        """A channel that the agent opens: both ends of it."""
        number = self.agent.open(request)
        stream = self._streams[number] = AgentStream(self, number)
        self.flush()
        return stream, await self._opened.get()

    def flush(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            task = asyncio.get_running_loop().create_task(self._exchange())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def settle(self, channel: Channel) -> None:
        """Nothing to forget here."""

    async def _exchange(self) -> None:
        self._scheduled = False
        # A driver reports small consumption once a second.
        self.agent.flush_consumed()
        while self.mux.has_outgoing or self.agent.has_outgoing:
            for message in self.agent.take_outgoing():
                for event in self.mux.receive(message):
                    self._at_broker(event)
            for message in self.mux.take_outgoing():
                for event in self.agent.receive(message):
                    self._at_agent(event)
                self.agent.flush_consumed()
        async with self.moved:
            self.moved.notify_all()

    def _at_broker(self, event: Event) -> None:
        match event:
            case Opened(number, request):
                self._channels[number] = Channel(self, number, request, accepted=False)
                self._opened.put_nowait(self._channels[number])
            case Data(number, data, more):
                self._channels[number].on_data(data, more)
            case Finished(number):
                self._channels[number].on_finished()
            case Credited(number, consumed):
                self._channels[number].on_credited(consumed)
            case Reset(number, _, _, consumed):
                self._channels[number].on_credited(consumed)
                self._channels[number].fail(StreamFailed("reset"))

    def _at_agent(self, event: Event) -> None:
        match event:
            case Accepted(number, info):
                self._streams[number].info = info
            case Data(number, data, more):
                self._on_data(self._streams[number], data, more)
            case Finished(number):
                self._streams[number].finished = True
            case Reset(number, code, _, _):
                self._streams[number].reset = code

    def _on_data(self, stream: AgentStream, data: bytes, more: bool) -> None:
        stream.pieces += data
        if not more:
            stream.messages.append(stream.pieces)
            stream.pieces = b""
        if stream.consumes:
            self.agent.consume(stream.number, len(data))
        else:
            stream.unconsumed += len(data)
