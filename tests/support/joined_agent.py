"""The agent's own connection, in this process, to a broker's core: all that it is but Instances."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.broker_core import Core
from tests.support.waiting import until

from sth_agent import host, join
from sth_agent.backoff import Backoff
from sth_agent.channels import Channel
from sth_agent.connection_state import ConnectionState
from sth_agent.connector import Connector
from sth_agent.credentials import Identity, IdentityStore
from sth_agent.join import JoinOptions
from sth_agent.renewal import renew_for_ever
from sth_agent.session import Session
from sth_protocol.errors import NotFound
from sth_protocol.jointoken import JoinToken


@dataclass
class Recorder:
    """Remembers what the broker did."""

    sessions: list[Session] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    notices: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    connector: Connector | None = None

    def session_began(self, session: Session) -> None:
        self.sessions.append(session)

    def opened(self, channel: Channel) -> None:
        self.channels.append(channel)
        channel.accept({"offset": 0})

    def request(self, kind: str, fields: dict[str, Any]) -> Awaitable[dict[str, Any]]:
        return _answer(kind, fields)

    def noticed(self, kind: str, fields: dict[str, Any]) -> None:
        self.notices.append((kind, fields))
        if kind == "hub.revoked" and self.connector is not None:
            self.connector.revoke()


async def _answer(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    if kind != "echo":
        raise NotFound(f"no {kind} here")
    return fields


@dataclass
class Connected:
    """A running connector."""

    connector: Connector
    store: IdentityStore
    handler: Recorder

    @property
    def state(self) -> str:
        return self.connector.status.state

    async def until_state(self, state: str) -> None:
        await until(f"the agent is {state}", lambda: self.state == state)


async def join_core(
    core: Core, directory: Path, *, token: JoinToken | None = None, name: str = "pi"
) -> Identity:
    """Join as the command does."""
    token = token or await core.join_token()
    result = await asyncio.to_thread(
        join.join,
        token,
        IdentityStore(directory / "identity"),
        host.machine(),
        options=JoinOptions(name=name),
        report=lambda text: None,
    )
    return result.identity


@contextlib.asynccontextmanager
async def connecting(directory: Path) -> AsyncIterator[Connected]:
    """The connector, and renewal, of the identity in `directory`, with short delays."""
    store = IdentityStore(directory / "identity")
    identity = store.current()
    assert identity is not None
    handler = Recorder()
    connector = Connector(
        store=store,
        identity=identity,
        state=ConnectionState(directory / "connection.json"),
        hub=host.hub_info(identity.name, {}),
        handler=handler,
        backoff=Backoff(random.uniform, first=0.02, longest=0.2),
    )
    handler.connector = connector
    works = [
        asyncio.create_task(connector.run()),
        asyncio.create_task(renew_for_ever(connector, store)),
    ]
    try:
        yield Connected(connector, store, handler)
    finally:
        for each in works:
            each.cancel()
        await asyncio.gather(*works, return_exceptions=True)
