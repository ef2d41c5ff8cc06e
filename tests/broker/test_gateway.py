"""Links: handshake, what ends them, what they survive, and agents that break the rules."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.support.broker_core import INFO, Core, Machine, close_on, running_core
from tests.support.waiting import until

from sth_broker.channel import Channel
from sth_broker.gateway import HubLink
from sth_protocol import codec, frames, handshake
from sth_protocol.errors import (
    BadFrame,
    BadRequest,
    HubOffline,
    InsufficientResources,
    SessionLost,
    SthError,
    TimedOut,
)
from sth_protocol.events import Control, Data, Opened, Pong, Reset
from sth_protocol.frames import FrameType
from sth_protocol.handshake import Hello
from sth_protocol.model import Json, to_map


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as core:
        yield core


@pytest.fixture
async def machine(core: Core) -> Machine:
    return await core.joined()


def _link(core: Core, machine: Machine) -> HubLink:
    link = core.gateway.hub(machine.hub)
    assert link is not None
    return link


async def _until_detached(link: HubLink) -> None:
    await until("the link is seen to be gone", lambda: not link.connected)


# -- handshake -------------------------------------------------------------------------------------


async def test_welcome_tells_the_agent_what_it_needs(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        welcome = end.welcome
        assert (welcome.hub, welcome.space) == (machine.hub, "default")
        assert welcome.addresses == [f"127.0.0.1:{core.port}"]
        assert welcome.heartbeat_ms == 15_000
        assert not welcome.resumed
        link = _link(core, machine)
        assert (link.info, link.remote, link.connected) == (INFO, "127.0.0.1", True)


def _hello(**fields: Any) -> bytes:
    hello = to_map(Hello(agent_boot=bytes(16), epoch=1, hub=INFO))
    return frames.encode_map(FrameType.HELLO, 0, 0, {**hello, **fields})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "BAD_HANDSHAKE"),
        (b"\xff" * 100, "BAD_HANDSHAKE"),
        (os.urandom(1000), "BAD_HANDSHAKE"),
        (frames.encode(FrameType.PING, 0, 1), "BAD_HANDSHAKE"),
        (_hello() + _hello(), "BAD_HANDSHAKE"),
        (_hello(versions=[99]), "VERSION_UNSUPPORTED"),
        (_hello(versions=[]), "BAD_HANDSHAKE"),
        (_hello(epoch=-1), "BAD_HANDSHAKE"),
        (_hello(agent_boot=b"short"), "BAD_HANDSHAKE"),
        (_hello(hub={"name": 7}), "BAD_HANDSHAKE"),
        (_hello(hub=None), "BAD_HANDSHAKE"),
    ],
    ids=range(11),
)
async def test_hello_that_is_wrong_is_closed_with_its_code(
    core: Core, machine: Machine, message: bytes, code: str
) -> None:
    async with machine.websocket() as websocket:
        await websocket.send(message)
        assert (await close_on(websocket)).code == code
    assert core.gateway.links() == []


async def test_text_instead_of_hello_is_closed(core: Core, machine: Machine) -> None:
    async with machine.websocket() as websocket:
        await websocket.send("HELLO")
        assert (await close_on(websocket)).code == "BAD_HANDSHAKE"


async def test_link_without_hello_is_closed(
    core: Core, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sth_broker.gateway.HELLO_SECONDS", 0.1)
    async with machine.websocket() as websocket:
        closed = await close_on(websocket)
    assert closed.code == "BAD_HANDSHAKE"
    assert "no HELLO" in closed.message


# -- agents that break the rules -------------------------------------------------------------------

_GARBAGE: list[tuple[bytes, str]] = [
    (b"\xc1", "BAD_FRAME"),
    (codec.pack([1, 2, 3]), "BAD_FRAME"),
    (codec.pack([99, 0, 0, None]), "BAD_FRAME"),
    (codec.pack([5, 0, 0, b"x"]), "BAD_FRAME"),
    (codec.pack([5, 1, 0, "text"]), "BAD_FRAME"),
    (codec.pack([5, 1, -1, b"x"]), "BAD_FRAME"),
    (codec.pack([5, 1, 0, b"x"]), "CHANNEL_VIOLATION"),
    (codec.pack([5, 2, 0, b"x"]), "CHANNEL_VIOLATION"),
    (frames.encode_map(FrameType.OPEN, 2, 16384, {}), "CHANNEL_VIOLATION"),
    (frames.encode_map(FrameType.OPEN, 1, 5, {}), "FLOW_CONTROL_VIOLATED"),
    (codec.pack([10, 0, 0, codec.pack([1])]), "BAD_FRAME"),
    (codec.pack([10, 0, 0, codec.pack({"type": 7})]), "BAD_FRAME"),
    (codec.pack([10, 0, 0, codec.pack({"type": "reply", "id": 77, "result": {}})]), "BAD_FRAME"),
    (codec.pack([5, 1, 0, bytes(300_000)]), "FRAME_TOO_LARGE"),
    (codec.pack([11, 0, 5, None]), "PROTOCOL_ERROR"),
    (_hello(), "BAD_HANDSHAKE"),
]


@pytest.mark.parametrize(("garbage", "code"), _GARBAGE, ids=range(len(_GARBAGE)))
async def test_garbage_closes_the_link_with_its_code(
    core: Core,
    machine: Machine,
    garbage: bytes,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with machine.link() as end:
        await end.websocket.send(garbage)
        assert (await close_on(end.websocket)).code == code
    assert len([each for each in caplog.messages if "breaks the wire" in each]) == 1
    assert core.gateway.links() == []
    # The process lives on, and so may the agent, in a new session.
    async with machine.link() as end:
        assert not end.welcome.resumed


async def test_message_beyond_the_limit_of_the_websocket_ends_the_link(
    core: Core, machine: Machine
) -> None:
    async with machine.link() as end:
        link = _link(core, machine)
        await end.websocket.send(bytes(400_000))
        await end.websocket.wait_closed()
        assert end.websocket.close_code == 1009
        await _until_detached(link)
    async with machine.link():
        pass


async def test_channel_of_an_unknown_kind_is_reset(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        for request in ({}, {"kind": 7}, {"kind": "nothing"}):
            end.mux.open(request)
            await end.flush()
            assert (await end.next_event(Reset)).code == "BAD_REQUEST"


async def test_notice_of_an_unknown_type_is_ignored(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        await end.tell("from.the.future", anything=1)
        assert "error" in await end.request("nothing", id=1)


async def test_notice_that_breaks_the_rules_closes_the_link(core: Core, machine: Machine) -> None:
    def refuse(_link: HubLink, _fields: Json) -> None:
        raise BadFrame("not a report")

    core.gateway.on_notify("instance.state", refuse)
    async with machine.link() as end:
        await end.tell("instance.state", report=7)
        assert (await close_on(end.websocket)).code == "BAD_FRAME"


async def test_handler_that_fails_answers_and_harms_nothing_else(
    core: Core, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_link: HubLink, _fields: Json) -> Json:
        raise ZeroDivisionError

    async def refuse(_link: HubLink, _fields: Json) -> Json:
        raise BadRequest("no", hint="ask for less")

    async def too_much(_link: HubLink, _fields: Json) -> Json:
        return {"text": "x" * 100_000}

    async def fail_channel(_link: HubLink, _channel: Channel) -> None:
        raise ZeroDivisionError

    def fail_notice(_link: HubLink, _fields: Json) -> None:
        raise ZeroDivisionError

    core.gateway.on_request("fail", fail)
    core.gateway.on_request("refuse", refuse)
    core.gateway.on_request("too.much", too_much)
    core.gateway.on_channel("fail", fail_channel)
    core.gateway.on_notify("fail", fail_notice)
    async with machine.link() as end:
        await end.tell("fail")
        assert (await end.request("fail", id=1))["error"]["code"] == "INTERNAL"
        error = (await end.request("refuse", id=2))["error"]
        assert error == {"code": "BAD_REQUEST", "message": "no", "hint": "ask for less"}
        assert (await end.request("too.much", id=3))["error"]["code"] == "TOO_LARGE"
        end.mux.open({"kind": "fail"})
        await end.flush()
        assert (await end.next_event(Reset)).code == "INTERNAL"
    assert len([each for each in caplog.records if each.exc_info]) == 3


# -- sessions --------------------------------------------------------------------------------------


async def test_request_survives_a_link_that_breaks(core: Core, machine: Machine) -> None:
    async with machine.link() as first:
        link = _link(core, machine)
        asked = asyncio.ensure_future(link.request("instance.health", instance="i"))
        await first.next_event(Control)
        first.websocket.transport.abort()
        await _until_detached(link)
        first.mux.detach()
    assert core.gateway.hub(machine.hub) is link, "a link that broke a moment ago still counts"
    second_question = asyncio.ensure_future(link.request("instance.health", instance="j"))
    async with machine.link(resume=first) as second:
        assert second.welcome.resumed
        await second.answer(1, healthy=True)
        assert await asked == {"healthy": True}
        request = await second.next_event(Control)
        assert request.message["instance"] == "j"
        await second.answer(request.message["id"], healthy=False)
        assert await second_question == {"healthy": False}


async def test_hub_that_stays_away_is_offline_and_nobody_waits(tmp_path: Path) -> None:
    async with running_core(tmp_path, resume_seconds=0.0) as core:
        gone: asyncio.Future[HubLink] = asyncio.get_running_loop().create_future()
        core.gateway.on_offline(gone.set_result)
        machine = await core.joined()
        async with machine.link() as end:
            link = _link(core, machine)
            asked = asyncio.ensure_future(link.request("instance.health"))
            opening = asyncio.ensure_future(link.open({"kind": "instance"}))
            await end.next_event(Opened)
        async with asyncio.timeout(10):
            assert await gone is link
            for waiting in (asked, opening):
                with pytest.raises(HubOffline):
                    await waiting
        assert core.gateway.hub(machine.hub) is None
        with pytest.raises(HubOffline):
            await link.request("instance.health")
        with pytest.raises(HubOffline):
            await link.open({"kind": "instance"})


async def test_new_link_does_not_wait_for_the_old_one_that_is_stuck(
    core: Core, machine: Machine
) -> None:
    async with machine.websocket() as first, machine.websocket() as second:
        old = await machine.greet(first)
        link = _link(core, machine)
        first.transport.pause_reading()
        for number in range(100):
            link.notify("test", number=number, padding=bytes(60_000))
        await until("the link is congested", lambda: link.congested)
        new = await machine.greet(second, resume=old)
        assert new.welcome.resumed
        for number in range(100):
            assert (await new.next_event(Control)).message["number"] == number
        first.transport.abort()


def test_link_works_on_the_loop_that_the_broker_uses(tmp_path: Path) -> None:
    async def there_and_back() -> None:
        async with running_core(tmp_path) as core:
            machine = await core.joined()
            async with machine.link() as end:
                link = _link(core, machine)
                opening = asyncio.ensure_future(link.open({"kind": "instance"}))
                number = (await end.next_event(Opened)).channel
                end.mux.accept(number)
                await end.flush()
                channel = await opening
                block = os.urandom(16_000)
                for _ in range(50):
                    await channel.write(block)
                    came = b""
                    while len(came) < len(block):
                        came += (await end.next_event(Data)).data
                    end.mux.consume(number, len(came))
                    end.mux.send(number, came)
                    await end.flush()
                    back = b""
                    while len(back) < len(block):
                        back += await channel.read()
                    channel.consume(len(back))
                    assert back == block
                await until("silence is measured", lambda: link.silent_for() > 1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(there_and_back())


async def test_agent_that_was_started_anew_loses_the_session(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        link = _link(core, machine)
        asked = asyncio.ensure_future(link.request("instance.health"))
        await end.next_event(Control)
    machine.boot = os.urandom(16)
    async with machine.link(resume=end) as end:
        assert not end.welcome.resumed
        with pytest.raises(SessionLost):
            await asked
        assert _link(core, machine) is not link


async def test_broker_that_stops_says_so(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        machine = await core.joined()
        async with machine.link() as end:
            closing = asyncio.ensure_future(close_on(end.websocket))
            await asyncio.sleep(0)
            await core.gateway.close()
            assert (await closing).code == "HUB_OFFLINE"


async def test_peer_that_is_silent_is_given_up_and_its_session_kept(
    core: Core, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sth_broker.hub_link.DEAD_SECONDS", 1.5)
    async with machine.link() as end:
        link = _link(core, machine)
        # It takes nothing and gives nothing; its kernel acknowledges all the same.
        await _until_detached(link)
        end.mux.detach()
        assert link in core.gateway.links()
    monkeypatch.undo()
    async with machine.link(resume=end) as again:
        assert again.welcome.resumed


async def test_bytes_that_trickle_are_life(
    core: Core, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long message, byte by byte: no message comes in twice the time of death."""
    monkeypatch.setattr("sth_broker.hub_link.DEAD_SECONDS", 1.5)
    monkeypatch.setattr("sth_broker.hub_link.HEARTBEAT_SECONDS", 1000.0)
    async with machine.link() as end:
        link = _link(core, machine)
        message = frames.encode(FrameType.PING, 0, 7) * 8
        transport = end.websocket.transport
        # A binary frame of a client, masked with zeros.
        wire = bytes([0x82, 0x80 | len(message), 0, 0, 0, 0]) + message
        for byte in wire:
            transport.write(bytes([byte]))
            await asyncio.sleep(3.0 / len(wire))
        assert link.connected


async def test_ping_measures_the_round_trip(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        link = _link(core, machine)
        end.mux.ping(5)
        await end.flush()
        assert (await end.next_event(Pong)).token == 5
        reading = asyncio.ensure_future(end.next_event(Opened))
        await until("the broker has measured", lambda: link.rtt is not None)
        reading.cancel()
        assert link.rtt is not None
        assert 0 <= link.rtt < 10


async def test_request_that_is_not_answered_times_out(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        link = _link(core, machine)
        with pytest.raises(TimedOut):
            await link.request("instance.health", timeout=0.05)
        first = await end.next_event(Control)
        asked = asyncio.ensure_future(link.request("instance.health"))
        second = await end.next_event(Control)
        # Late, and for nobody.
        await end.answer(first.message["id"], late=True)
        await end.answer(second.message["id"], late=False)
        assert await asked == {"late": False}


async def test_error_of_the_agent_is_raised_as_its_kind(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        asked = asyncio.ensure_future(_link(core, machine).request("instance.stop"))
        number = (await end.next_event(Control)).message["id"]
        error = {"code": "NOT_FOUND", "message": "no such Instance", "hint": "look"}
        end.mux.control({"type": "reply", "id": number, "error": error})
        await end.flush()
        with pytest.raises(SthError) as caught:
            await asked
        assert caught.value.to_wire() == error


async def test_hundred_reconnects_leave_nothing_behind(core: Core, machine: Machine) -> None:
    """Scenario 5, as far as the broker's core goes."""
    async with machine.link() as end:
        pass
    tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        end.mux.detach()
        async with machine.link(resume=end) as end:
            assert end.welcome.resumed
    link = _link(core, machine)
    await _until_detached(link)
    await until("no task is left over", lambda: len(asyncio.all_tasks()) <= tasks)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert [each.hub_id for each in core.gateway.links()] == [machine.hub]


async def test_hello_is_read_as_the_agent_writes_it(core: Core, machine: Machine) -> None:
    async with machine.websocket() as websocket:
        hello = Hello(agent_boot=bytes(16), epoch=1, hub=INFO, features=["from-the-future"])
        await websocket.send(handshake.encode_hello(hello))
        answer = handshake.decode_answer(await websocket.recv(decode=False))
        assert isinstance(answer, handshake.Welcome)
        assert answer.features == []


async def test_hub_that_reads_nothing_is_cut_all_the_same(core: Core, machine: Machine) -> None:
    async with machine.link() as end:
        link = _link(core, machine)
        with pytest.raises(InsufficientResources):
            while True:
                link.mux.control({"type": "filler", "text": "x" * 60_000})
        await core.hubs.revoke("default", machine.hub, by="test")
        assert core.gateway.links() == []
        await end.websocket.wait_closed()
