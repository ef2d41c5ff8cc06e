"""Scenario 3: two connections with one certificate. The newest wins at once; the old one's FIN does
not tear down the new one; its Instances are listed once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.broker_core import SPACE, AgentEnd, Core, Machine, close_on, running_core

from sth_broker.channel import Channel
from sth_broker.gateway import HubLink
from sth_protocol.events import Accepted, Control
from sth_protocol.model import Json


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as core:
        yield core


class Syncs:
    """What the Hubs report: the Instances of each, as the last hub.sync of a session had them."""

    def __init__(self, core: Core) -> None:
        self.listed: dict[str, list[Json]] = {}
        core.gateway.on_request("hub.sync", self._sync)

    async def _sync(self, link: HubLink, fields: Json) -> Json:
        self.listed[link.hub_id] = fields["instances"]
        return {}


async def _echo(core: Core, machine: Machine, end: AgentEnd) -> None:
    """The broker's link to the Hub works, both ways, over `end`."""
    link = core.gateway.hub(machine.hub)
    assert link is not None
    asked = asyncio.ensure_future(link.request("instance.health", instance="i"))
    request = await end.next_event(Control)
    await end.answer(request.message["id"], healthy=True)
    assert await asked == {"healthy": True}


async def test_scenario_03_fin_of_the_old_link_does_not_tear_down_the_new(core: Core) -> None:
    ended: list[HubLink] = []
    core.gateway.on_offline(ended.append)
    syncs = Syncs(core)
    machine = await core.joined()
    # The same identity, twice: as of an agent that thinks its first connection dead.
    async with machine.websocket() as first, machine.websocket() as second:
        old = await machine.greet(first)
        await old.request("hub.sync", id=1, instances=[{"instance": "i"}], page=0, pages=1)
        session = core.gateway.hub(machine.hub)
        new = await machine.greet(second, resume=old)
        assert new.welcome.resumed
        assert (await close_on(first)).code == "LINK_REPLACED"
        await _echo(core, machine, new)
        # Its FIN, late.
        await first.close()
        await first.wait_closed()
        await _echo(core, machine, new)
        assert core.gateway.hub(machine.hub) is session
        assert ended == []
        assert [each.hub_id for each in core.gateway.links()] == [machine.hub]
        assert len(syncs.listed[machine.hub]) == 1
        assert len(core.hubs.list(SPACE)) == 1


async def test_scenario_03_new_session_takes_the_place_of_the_old(core: Core) -> None:
    """An agent that was started anew, while its old connection is not known to be dead."""
    ended: list[HubLink] = []
    core.gateway.on_offline(ended.append)
    syncs = Syncs(core)
    machine = await core.joined()
    restarted = Machine(core, machine.key, machine.certificate, machine.hub, epoch=1)
    async with machine.websocket() as first, restarted.websocket() as second:
        old = await machine.greet(first)
        await old.request("hub.sync", id=1, instances=[{"instance": "i"}], page=0, pages=1)
        new = await restarted.greet(second)
        assert not new.welcome.resumed
        await new.request("hub.sync", id=1, instances=[{"instance": "i"}], page=0, pages=1)
        assert (await close_on(first)).code in ("LINK_REPLACED", "SESSION_LOST")
        await first.close()
        await first.wait_closed()
        await _echo(core, machine, new)
        assert len(ended) == 1
        assert len(core.gateway.links()) == 1
        assert len(syncs.listed[machine.hub]) == 1


async def test_scenario_03_older_connection_that_comes_late_is_refused(core: Core) -> None:
    machine = await core.joined()
    machine.epoch = 5
    async with machine.link() as new:
        late = Machine(core, machine.key, machine.certificate, machine.hub, machine.boot, epoch=2)
        async with late.websocket() as websocket:
            with pytest.raises(AssertionError, match="LINK_REPLACED"):
                await late.greet(websocket)
        await _echo(core, machine, new)


async def test_scenario_03_stream_goes_on_where_it_was(core: Core) -> None:
    """Bytes that the old link lost arrive over the new one, once."""
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(_link: HubLink, channel: Channel) -> None:
        channel.accept()
        while data := await channel.read():
            channel.consume(len(data))
            received.put_nowait(data)

    core.gateway.on_channel("test", take)
    machine = await core.joined()
    async with machine.websocket() as first, machine.websocket() as second:
        old = await machine.greet(first)
        channel = old.mux.open({"kind": "test"})
        old.mux.send(channel, b"one")
        await old.flush()
        assert await received.get() == b"one"
        await old.next_event(Accepted)
        old.mux.send(channel, b"two")
        lost = old.mux.take_outgoing()
        assert lost, "something must be lost for this to show anything"
        old.mux.detach()
        new = await machine.greet(second, resume=old)
        assert new.welcome.resumed
        await new.flush()
        new.mux.send(channel, b"three")
        await new.flush()
        came = b""
        while len(came) < len(b"twothree"):
            came += await received.get()
        assert came == b"twothree"
