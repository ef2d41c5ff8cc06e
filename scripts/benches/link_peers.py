"""Our two ends of a link, as processes that take the place of the bare peers.

    python -m scripts.benches.link_peers receive-mux DIRECTORY
    python -m scripts.benches.link_peers send-mux DIRECTORY PORT MEBIBYTES

The receiver is the broker's gateway behind a bare route, the sender the agent's link; one channel
carries 64 KiB messages from agent to broker, as `peers` does without a multiplexer.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from scripts.benches.peers import CHUNK, Stopwatch, client_context, server_context

from sth_agent.addresses import Address
from sth_agent.channels import Channel, ChannelUser
from sth_agent.link import Link
from sth_agent.session import Session
from sth_broker.channel import Channel as BrokerChannel
from sth_broker.gateway import Gateway, HubLink, Peer
from sth_protocol.allocator import keep_freed_memory
from sth_protocol.errors import SthError
from sth_protocol.handshake import Hello
from sth_protocol.model import HubInfo

KIND = "bench"


async def receive(directory: Path) -> None:
    """Print the port, then for each channel its bytes and seconds."""
    gateway = Gateway()
    gateway.on_channel(KIND, _count)
    gateway.start()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        return await gateway.serve(request, Peer("bench", "default", "bench"), _admit)

    application = web.Application()
    application.router.add_get("/v1/link", serve)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(directory))
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def _admit(_hello: Hello) -> None:
    return None


async def _count(_link: HubLink, channel: BrokerChannel) -> None:
    channel.accept({})
    watch = Stopwatch()
    while data := await channel.read():
        watch.count(len(data))
        channel.consume(len(data))
    watch.print()


class _Source(ChannelUser):
    """Sends what credit allows, whenever it allows more."""

    def __init__(self, count: int) -> None:
        self.channel: Channel | None = None
        self.done = asyncio.get_running_loop().create_future()
        self._left = count
        self._chunk = bytes(CHUNK)

    def accepted(self, info: Mapping[str, Any]) -> None:
        self.pump()

    def credited(self, consumed: int) -> None:
        self.pump()

    def pump(self) -> None:
        assert self.channel is not None
        while self._left and self.channel.sendable > 0:
            self._left -= 1
            self.channel.send(self._chunk)
            if not self._left:
                self.channel.finish()

    def finished(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def reset(self, error: SthError, consumed: int | None) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Handler:
    """The broker asks nothing of this agent."""

    def opened(self, channel: Channel) -> None:
        raise AssertionError

    async def request(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    def noticed(self, kind: str, fields: dict[str, Any]) -> None:
        raise AssertionError


async def send(directory: Path, port: int, mebibytes: int) -> None:
    link = await Link.dial(Address("127.0.0.1", port), client_context(directory))
    info = HubInfo(name="bench", agent_version="0", arch="", os="", python="")
    welcome = await link.greet(Hello(agent_boot=os.urandom(16), epoch=time.time_ns(), hub=info))
    session = Session(welcome.broker_boot, _Handler())
    session.mux.attach(peer_received=0)
    link.carry(session, heartbeat=15.0)
    source = _Source(mebibytes * 16)
    source.channel = session.open({"kind": KIND}, source)
    await source.done


def main() -> None:
    action, directory = sys.argv[1], Path(sys.argv[2])
    keep_freed_memory()
    if action == "receive-mux":
        uvloop.run(receive(directory))
    else:
        asyncio.run(send(directory, int(sys.argv[3]), int(sys.argv[4])))


if __name__ == "__main__":
    main()
