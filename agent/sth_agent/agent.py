"""The running agent: what is joined to what, and who is stopped by what.

The spawner holds the Instances and outlives this process, which may be ended at any time; only
`stop` ends everything.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any

from sth_agent import host
from sth_agent.backoff import Backoff
from sth_agent.channels import Channel
from sth_agent.config import StateDirectory
from sth_agent.connection_state import ConnectionState
from sth_agent.connector import Connector
from sth_agent.control_socket import ControlServer
from sth_agent.credentials import Identity, IdentityStore, require_identity
from sth_agent.instances import Instances
from sth_agent.renewal import renew_for_ever
from sth_agent.session import Session
from sth_agent.spawner_client import Exit, Spawner, SpawnerClient, ensure_spawner
from sth_protocol.allocator import keep_freed_memory
from sth_protocol.descriptors import raise_descriptor_limit
from sth_protocol.errors import BadRequest, SthError, StreamFailed
from sth_protocol.model import to_map

logger = logging.getLogger(__name__)

Json = dict[str, Any]
SHUTDOWN_GRACE_MS = 1000


def run(state: StateDirectory, *, allow_unsandboxed: bool = False) -> None:
    """Run until SIGTERM, SIGINT or `stop`. Conflict if another agent holds the directory."""
    state.create()
    keep_freed_memory()
    raise_descriptor_limit()
    with state.lock():
        identity = require_identity(state.identity)
        # Before any key is read: the spawner is to hold no secret.
        spawner = ensure_spawner(state.path, allow_unsandboxed=allow_unsandboxed)
        asyncio.run(_serve(state, identity, spawner, allow_unsandboxed=allow_unsandboxed))


async def _serve(
    state: StateDirectory, identity: Identity, spawner: socket.socket, *, allow_unsandboxed: bool
) -> None:
    agent = Agent(state, spawner, allow_unsandboxed=allow_unsandboxed)
    try:
        await agent.serve(identity)
    finally:
        agent.close()


class Agent:
    """Handles what the broker asks (`session.Handler`) and what commands on this machine ask."""

    def __init__(
        self, state: StateDirectory, spawner: socket.socket, *, allow_unsandboxed: bool
    ) -> None:
        self._state = state
        self._allow_unsandboxed = allow_unsandboxed
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._is_stopping = False
        self._restarting: asyncio.Task[None] | None = None
        self._spawner_is = Spawner(0, {})
        self._connector: Connector | None = None
        self._spawner = SpawnerClient(spawner, exited=self._exited, gone=self._spawner_gone)
        self._instances = Instances(self._spawner, state.instances, state.temporary)
        self._control = ControlServer(
            state.path, {"status": self._status, "stop": self._stop, "reload": self._reload}
        )

    async def serve(self, identity: Identity) -> None:
        """Everything, until it is to end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._finished.set)
        store = IdentityStore(self._state.identity)
        store.drop_others(identity)
        self._spawner_is = await self._spawner.hello()
        await self._instances.adopt()
        self._connector = Connector(
            store=store,
            identity=identity,
            state=ConnectionState(self._state.connection),
            hub=await asyncio.to_thread(host.hub_info, identity.name, self._spawner_is.report),
            handler=self,
        )
        await self._control.start()
        works = [
            asyncio.create_task(self._connector.run(), name="connector"),
            asyncio.create_task(renew_for_ever(self._connector, store), name="renewal"),
            asyncio.create_task(self._finished.wait(), name="end"),
        ]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in works:
                each.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    def close(self) -> None:
        """Let go of everything that runs on."""
        self._control.close()
        if self._restarting is not None:
            self._restarting.cancel()
        self._instances.close()
        self._spawner.close()

    # -- what the broker says ------------------------------------------------------------------

    def session_began(self, session: Session) -> None:
        self._instances.session_began(session)

    def opened(self, channel: Channel) -> None:
        if channel.request.get("kind") == "instance":
            self._instances.opened(channel)
        else:
            channel.reset(BadRequest(f"no channels of kind {channel.request.get('kind')!r:.40}"))

    def request(self, kind: str, fields: Json) -> Awaitable[Json]:
        answer = self._instances.requests.get(kind)
        if answer is None:
            raise BadRequest(f"this agent knows no request '{kind[:40]}'")
        return answer(fields)

    def noticed(self, kind: str, fields: Json) -> None:
        assert self._connector is not None
        match kind:
            case "hub.revoked":
                self._connector.revoke()
            case "hub.addresses":
                addresses = fields.get("addresses")
                if isinstance(addresses, list):
                    self._connector.told(tuple(str(each) for each in addresses))
            case _:
                logger.info("the broker says %s, which this agent does not know", kind)

    # -- what the spawner says -----------------------------------------------------------------

    def _exited(self, instance: str, ended: Exit) -> None:
        self._instances.exited(instance, ended)

    def _spawner_gone(self) -> None:
        self._instances.spawner_gone()
        if not self._is_stopping:
            logger.error("the spawner has ended, and all Instances with it; starting it again")
            self._restarting = self._loop.create_task(self._restart_spawner())

    async def _restart_spawner(self) -> None:
        backoff = Backoff(lambda low, high: high, first=1.0)
        while True:
            try:
                connection = await asyncio.to_thread(
                    ensure_spawner, self._state.path, allow_unsandboxed=self._allow_unsandboxed
                )
                self._spawner.use(connection)
                self._spawner_is = await self._spawner.hello()
                return
            except SthError as error:
                logger.error("%s", error.message)
                await asyncio.sleep(backoff.next_delay())

    # -- what commands on this machine ask -----------------------------------------------------

    async def _status(self, _: Json) -> Json:
        assert self._connector is not None
        identity = self._connector.identity
        return {
            "hub": identity.hub,
            "name": identity.name,
            "space": identity.space,
            "version": host.agent_version(),
            "certificate_expires": identity.expires,
            "connection": asdict(self._connector.status),
            "addresses": [str(each) for each in self._connector.addresses],
            "agent": os.getpid(),
            "spawner": self._spawner_is.pid,
            "sandbox": self._spawner_is.report,
            "instances": [to_map(each) for each in self._instances.reports()],
        }

    async def _stop(self, request: Json) -> Json:
        grace_ms = request.get("grace_ms")
        if not isinstance(grace_ms, int) or grace_ms < 0:
            raise BadRequest("grace_ms is a whole number")
        self._is_stopping = True
        await self._instances.stop_all(grace_ms / 1000)
        try:
            await self._spawner.shutdown(SHUTDOWN_GRACE_MS)
        except StreamFailed:
            pass
        # The answer leaves before the socket is closed.
        self._loop.call_soon(self._finished.set)
        return {}

    async def _reload(self, _: Json) -> Json:
        assert self._connector is not None
        self._connector.reload()
        return {}
