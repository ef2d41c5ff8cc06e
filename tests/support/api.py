"""A whole broker in this process, its API on a loopback port, and those who use it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.support import packages, scripted_agent
from tests.support.broker_core import Machine
from tests.support.scripted_agent import ScriptedAgent

from sth_broker.app import Broker, running
from sth_broker.config import Address, Config, parse_address
from sth_broker.pki import CertificateAuthority
from sth_broker.tokens import Scope
from sth_protocol.jointoken import parse_token

LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Api:
    """One broker as its clients see it. `http` carries the admin's token and the API's base."""

    broker: Broker
    http: aiohttp.ClientSession

    @property
    def port(self) -> int:
        """Of the agents' port."""
        return parse_address(self.broker.agents, default_port=0).port

    @property
    def authority(self) -> CertificateAuthority:
        return self.broker.services.authority

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API, for those who write HTTP by hand."""
        parsed = parse_address(self.broker.url.removeprefix("http://"), default_port=0)
        return parsed.host, parsed.port

    @property
    def token(self) -> str:
        return self.broker.directory.admin_token.read_text().strip()

    async def make_token(self, scope: Scope, *, space: str = "default") -> str:
        return await self.broker.services.tokens.make_api(space=space, scope=scope, by="test")

    async def call(
        self, method: str, path: str, *, expect: int = 200, token: str | None = None, **options: Any
    ) -> Any:
        """The JSON answer to one request, whose status must be `expect`."""
        if token is not None:
            options["headers"] = {
                **options.get("headers", {}),
                "Authorization": f"Bearer {token}",
            }
        async with self.http.request(method, f"/api/v1/{path}", **options) as response:
            text = await response.text()
            assert response.status == expect, (response.status, text)
            return await response.json() if text else None

    async def upload(self, package: bytes = b"", *, token: str | None = None) -> str:
        """The id of a new Sequence."""
        body = package or packages.python(packages.LINES)
        answer = await self.call("POST", "sequence", data=body, token=token)
        return str(answer["id"])

    async def start(self, sequence: str = "", **body: Any) -> str:
        """The id of a new Instance."""
        sequence = sequence or await self.upload()
        answer = await self.call("POST", f"sequence/{sequence}/start", json=body)
        return str(answer["id"])

    async def machine(self, name: str = "pi", *, space: str = "default") -> Machine:
        """A machine that has joined."""
        text = await self.broker.services.tokens.make_join(
            space=space, addresses=[self.broker.agents], pins=[self.authority.pin], by="test"
        )
        machine = Machine(self)
        status, answer = await machine.enroll(parse_token(text), name=name)
        assert status == 200, answer
        return machine

    @contextlib.asynccontextmanager
    async def agent(
        self, name: str = "pi", *, space: str = "default"
    ) -> AsyncIterator[ScriptedAgent]:
        """A joined machine that is connected and does as it is told."""
        async with scripted_agent.connected(await self.machine(name, space=space)) as agent:
            yield agent


@contextlib.asynccontextmanager
async def running_api(data: Path, **settings: Any) -> AsyncIterator[Api]:
    """A broker with its state in `data`; `settings` are those of Config."""
    config = Config(data=data, listen=LOOPBACK, agents=LOOPBACK, **settings)
    async with running(config) as broker:
        token = broker.directory.admin_token.read_text().strip()
        async with aiohttp.ClientSession(
            broker.url, headers={"Authorization": f"Bearer {token}"}
        ) as http:
            yield Api(broker, http)
