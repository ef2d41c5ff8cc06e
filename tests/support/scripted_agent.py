"""An agent that does what a test says: a real websocket and a real multiplexer, and no programs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.broker_core import AgentEnd, Machine
from websockets.exceptions import ConnectionClosed

from sth_protocol.control import Answer, Request, parse
from sth_protocol.errors import SthError
from sth_protocol.events import Accepted, Control, Data, Event, Finished, Opened, Reset
from sth_protocol.lifecycle import State
from sth_protocol.model import InstanceReport, to_map

Json = dict[str, Any]
# None: the request is left without an answer.
Responder = Callable[[Json], Json | SthError | None]
WAIT_SECONDS = 10.0


@dataclass
class AgentChannel:
    """One channel at the agent's end, and what came on it."""

    number: int
    request: Json
    received: bytearray = field(default_factory=bytearray)
    accepted: bool = False
    finished: bool = False
    reset: str = ""


class ScriptedAgent:
    """Accepts channels and answers requests as `refuse` and `responders` say: by default programs
    start, live and stop. What comes on a channel is consumed at once if `consumes`."""

    def __init__(self, end: AgentEnd, hub: str) -> None:
        self.end = end
        self.hub = hub
        self.mux = end.mux
        self.requests: list[Json] = []
        self.notices: list[Json] = []
        self.answers: dict[int, Answer] = {}
        self.channels: dict[int, AgentChannel] = {}
        self.refuse: Callable[[Json], SthError | None] = lambda request: None
        self.consumes = True
        self.responders: dict[str, Responder] = {
            "instance.start": lambda fields: _report(fields["spec"]["instance"], "running"),
            "instance.stop": lambda fields: _report(fields["instance"], "completed"),
            "instance.kill": lambda fields: _report(fields["instance"], "completed"),
            "instance.forget": lambda fields: {},
            "instance.health": lambda fields: {"healthy": True, "process_id": 77},
        }
        self._changed = asyncio.Condition()
        self._last_request = 0

    async def serve(self) -> None:
        """Until the link ends."""
        try:
            while True:
                message = await self.end.websocket.recv()
                assert isinstance(message, bytes)
                events = self.mux.receive(message)
                async with self._changed:
                    for event in events:
                        self._take(event)
                    self._changed.notify_all()
                await self.flush()
        except ConnectionClosed:
            return

    async def flush(self) -> None:
        """Send what waits."""
        for message in self.mux.take_outgoing(1 << 30):
            await self.end.websocket.send(message)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition` gives something true; that."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            return await self._changed.wait_for(condition)

    async def channel(self, **wanted: object) -> AgentChannel:
        """The newest open channel whose request has these fields, once there is one."""

        def find() -> AgentChannel | None:
            return next(
                (
                    each
                    for each in reversed(self.channels.values())
                    if not each.reset and wanted.items() <= each.request.items()
                ),
                None,
            )

        found: AgentChannel = await self.until(find)
        return found

    async def send(self, channel: AgentChannel, data: bytes) -> None:
        self.mux.send(channel.number, data)
        await self.flush()

    async def finish(self, channel: AgentChannel) -> None:
        self.mux.finish(channel.number)
        await self.flush()

    async def break_off(self, channel: AgentChannel, code: str, message: str = "") -> None:
        self.mux.reset(channel.number, code, message)
        channel.reset = code
        await self.flush()

    async def open(self, **request: object) -> AgentChannel:
        """Open a channel to the broker; it may not be accepted yet."""
        number = self.mux.open(request)
        self.channels[number] = AgentChannel(number, dict(request))
        await self.flush()
        return self.channels[number]

    async def request(self, type: str, **fields: object) -> Answer:
        """The broker's answer to a control request."""
        self._last_request += 1
        number = self._last_request
        self.mux.control({**fields, "type": type, "id": number})
        await self.flush()
        answer: Answer = await self.until(lambda: self.answers.get(number))
        return answer

    async def sync(self, *reports: InstanceReport) -> Answer:
        """Tell what runs here, as the first thing in a session."""
        listed = [to_map(each) for each in reports]
        return await self.request("hub.sync", instances=listed, page=0, pages=1)

    async def tell(self, report: InstanceReport) -> None:
        await self.end.tell("instance.state", report=to_map(report))

    def asked(self, type: str) -> list[Json]:
        """The requests of that type so far."""
        return [each for each in self.requests if each["type"] == type]

    def _take(self, event: Event) -> None:
        match event:
            case Opened(number, request):
                self._open(AgentChannel(number, dict(request)))
            case Accepted(number, _):
                self.channels[number].accepted = True
            case Data(number, data, _):
                channel = self.channels[number]
                channel.received += data
                if self.consumes:
                    self.mux.consume(number, len(data))
            case Finished(number):
                self.channels[number].finished = True
                if self.channels[number].request.get("stream") in ("input", "stdin"):
                    self.mux.finish(number)
            case Reset(number, code, _, _):
                self.channels[number].reset = code
            case Control(message):
                self._on_control(parse(message))

    def _open(self, channel: AgentChannel) -> None:
        self.channels[channel.number] = channel
        refusal = self.refuse(channel.request)
        if refusal is not None:
            channel.reset = refusal.code
            self.mux.reset(channel.number, refusal.code, refusal.message)
        else:
            channel.accepted = True
            self.mux.accept(channel.number, {"offset": 0, "content_type": "text/plain"})

    def _on_control(self, message: object) -> None:
        match message:
            case Request(kind, number, fields):
                self.requests.append({**fields, "type": kind})
                result = self.responders[kind](fields)
                if isinstance(result, SthError):
                    answer = {"type": "reply", "id": number, "error": result.to_wire()}
                    self.mux.control(answer)
                elif result is not None:
                    self.mux.control({"type": "reply", "id": number, "result": result})
            case Answer(number, _, _) as answer:
                self.answers[number] = answer


@contextlib.asynccontextmanager
async def connected(machine: Machine, *, sync: bool = True) -> AsyncIterator[ScriptedAgent]:
    """The agent of a joined machine, over a new link."""
    async with machine.link() as end:
        agent = ScriptedAgent(end, machine.hub)
        serving = asyncio.create_task(agent.serve())
        try:
            if sync:
                await agent.sync()
            yield agent
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _report(instance: str, state: State) -> Json:
    return {"report": to_map(report(instance, state))}


def report(instance: str, state: State, **more: Any) -> InstanceReport:
    """What an agent would say of an Instance."""
    ended = state in ("completed", "errored")
    fields = {"exit_code": 0, "ended_ms": 2_000_000_000_000} if ended else {}
    return InstanceReport(
        **{
            "instance": instance,
            "sequence": "",
            "state": state,
            "started_ms": 1_900_000_000_000,
            "process_id": 77,
            **fields,
            **more,
        }
    )
