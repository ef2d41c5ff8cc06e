"""The agent's Instances on a real spawner, asked by a scripted broker over memory."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support.session_pair import BrokerStream, SessionPair
from tests.support.waiting import until

from sth_agent import shutdown
from sth_agent.channels import Channel
from sth_agent.config import StateDirectory
from sth_agent.instances import Instances
from sth_agent.session import Session
from sth_agent.spawner_client import Exit, SpawnerClient, ensure_spawner
from sth_protocol.errors import SthError, from_wire
from sth_protocol.model import InstanceReport, StartSpec, from_map, to_map


class Handler:
    """What a session needs of an agent that is nothing but its Instances."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def opened(self, channel: Channel) -> None:
        self._instances.opened(channel)

    def request(self, kind: str, fields: dict[str, Any]) -> Awaitable[dict[str, Any]]:
        return self._instances.requests[kind](fields)

    def noticed(self, kind: str, fields: dict[str, Any]) -> None:
        raise AssertionError(kind)


class Broker(SessionPair):
    """The broker's end. `packages`: by hash; `served`: hashes in the order they were fetched."""

    def __init__(self, agent: "AgentInstances") -> None:
        super().__init__()
        self.agent = Session(self.agent.broker_boot, Handler(agent.instances))
        self.agent.mux.attach(peer_received=0)
        self.agent.wake = self.wake
        self.packages: dict[str, bytes] = {}
        self.served: list[str] = []
        self._ids = itertools.count(1)
        self._answered = 0
        self.reports: dict[str, InstanceReport] = {}
        agent.instances.session_began(self.agent)

    def upload(self, package: bytes) -> str:
        """Its hash."""
        digest = hashlib.sha256(package).hexdigest()
        self.packages[digest] = package
        return digest

    async def ask(self, kind: str, **fields: object) -> dict[str, Any]:
        """The result of a request; its error is raised."""
        number = next(self._ids)
        self.broker.control({**fields, "type": kind, "id": number})
        self.wake()
        found: list[dict[str, Any]] = []

        def answered() -> bool:
            self._serve()
            found.extend(
                each
                for each in self.told
                if each.get("type") == "reply" and each.get("id") == number
            )
            return bool(found)

        await until(f"{kind} is answered", answered, seconds=30)
        answer = found[0]
        if "error" in answer:
            raise from_wire(answer["error"])
        return dict(answer["result"])

    async def start(self, package: bytes, **fields: Any) -> InstanceReport:
        """Start an Instance of a package; its report."""
        spec = StartSpec(
            instance=fields.pop("instance", str(uuid.uuid4())),
            sequence="s",
            sha256=fields.pop("sha256", "") or self.upload(package),
            language=fields.pop("language", "python"),
            main=fields.pop("main", "main.py"),
            **fields,
        )
        answer = await self.ask("instance.start", spec=to_map(spec))
        return from_map(InstanceReport, answer["report"])

    def stream(self, instance: str, name: str, **request: Any) -> BrokerStream:
        """A channel to one of its streams."""
        number = self.broker.open(
            {"kind": "instance", "instance": instance, "stream": name, **request}
        )
        self.streams[number] = BrokerStream(self, number)
        self.wake()
        return self.streams[number]

    async def read(self, instance: str, name: str) -> bytes:
        """A stream to its end."""
        stream = self.stream(instance, name)
        await until(f"{name} ends", lambda: self._moved(stream), seconds=30)
        return stream.data

    def state(self, instance: str) -> InstanceReport | None:
        """What was last told of an Instance."""
        for message in self.told:
            told = {"instance.state": "report", "hub.sync": "instances"}.get(message["type"])
            found = message[told] if told else []
            for each in found if isinstance(found, list) else [found]:
                report = from_map(InstanceReport, each)
                self.reports[report.instance] = report
        return self.reports.get(instance)

    async def until_ended(self, instance: str) -> InstanceReport:
        def ended() -> bool:
            report = self.state(instance)
            return report is not None and report.ended_ms > 0

        await until("it has ended", ended, seconds=30)
        return self.reports[instance]

    def _moved(self, stream: BrokerStream) -> bool:
        self.report()
        if stream.reset is not None:
            raise from_wire({"code": stream.reset.code, "message": stream.reset.message})
        return stream.is_finished

    def _serve(self) -> None:
        """Send the packages that are asked for, and answer `hub.sync`."""
        for stream in self.opened_by_agent:
            if stream.info.get("kind") == "package" and not stream.is_accepted:
                stream.is_accepted = True
                digest = str(stream.info["sha256"])
                self.served.append(digest)
                package = self.packages.get(digest)
                if package is None:
                    stream.break_off("NOT_FOUND")
                    continue
                self.accept(stream)
                stream.send(package)
                stream.finish()


class AgentInstances:
    """`instances` of one agent after the other, on one spawner."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self._is_closed = False
        self.spawner_has_gone = asyncio.Event()
        self.spawner = SpawnerClient(
            ensure_spawner(state.path),
            exited=self._exited,
            gone=self._gone,
        )
        self.instances = Instances(self.spawner, state.instances, state.temporary)

    def close(self) -> None:
        """As an agent that is killed: nothing is told to anybody. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self.instances.close()
            self.spawner.close()

    def _exited(self, name: str, ended: Exit) -> None:
        self.instances.exited(name, ended)

    def _gone(self) -> None:
        self.instances.spawner_gone()
        self.spawner_has_gone.set()


@contextlib.asynccontextmanager
async def running_spawner() -> AsyncIterator[Callable[[], AgentInstances]]:
    """Makes agents on one spawner of its own, which ends with them."""
    state = StateDirectory(Path(tempfile.mkdtemp(prefix="sth-agent-")))
    state.create()
    agents: list[AgentInstances] = []

    def make() -> AgentInstances:
        while agents:
            agents.pop().close()
        agents.append(AgentInstances(state))
        return agents[0]

    try:
        yield make
    finally:
        for each in agents:
            each.close()
        with contextlib.suppress(SthError):
            await asyncio.to_thread(shutdown.stop, state, grace=0.0)
        shutil.rmtree(state.path)


def lines(data: bytes) -> list[Any]:
    """The values of ndjson."""
    return [json.loads(each) for each in data.splitlines()]
