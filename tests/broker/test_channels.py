"""Channels as their users see them: bytes, messages, credit, the end, and what is left behind."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.broker_core import AgentEnd, Machine, running_core
from tests.support.waiting import until

from sth_broker.channel import MAX_MESSAGE, Channel
from sth_broker.gateway import HubLink
from sth_protocol.errors import (
    FrameTooLarge,
    NotFound,
    SessionLost,
    StreamFailed,
    TimedOut,
)
from sth_protocol.events import Accepted, Credited, Data, Finished, Opened, Reset
from sth_protocol.window import MAX_WINDOW, MIN_WINDOW

KIND = "test"


@dataclass
class Wire:
    """A link with both of its ends. `served`: the channels that the agent opened."""

    link: HubLink
    end: AgentEnd
    served: "asyncio.Queue[Channel]"
    release: asyncio.Event

    async def opened_here(self, info: dict[str, Any] | None = None) -> tuple[Channel, int]:
        """A channel that the broker opened: its user's end, and its number."""
        opening = asyncio.ensure_future(self.link.open({"kind": "instance"}))
        number = (await self.end.next_event(Opened)).channel
        self.end.mux.accept(number, info)
        await self.end.flush()
        return await opening, number

    async def opened_there(self) -> tuple[Channel, int]:
        """A channel that the agent opened, accepted."""
        number = self.end.mux.open({"kind": KIND, "topic": "t"})
        await self.end.flush()
        channel = await self.served.get()
        channel.accept({"next_sequence": 7})
        assert (await self.end.next_event(Accepted)).info == {"next_sequence": 7}
        return channel, number

    async def send(self, number: int, data: bytes, *, more: bool = False) -> None:
        self.end.mux.send(number, data, more=more)
        await self.end.flush()

    async def pump(self) -> None:
        """Let the agent's end read and answer for ever."""
        while True:
            await self.end.next_event(Pumped)


class Pumped:
    """No event is one."""


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    async with running_core(tmp_path) as core:
        served: asyncio.Queue[Channel] = asyncio.Queue()
        release = asyncio.Event()

        async def serve(_link: HubLink, channel: Channel) -> None:
            served.put_nowait(channel)
            await release.wait()

        core.gateway.on_channel(KIND, serve)
        machine: Machine = await core.joined()
        async with machine.link() as end:
            link = core.gateway.hub(machine.hub)
            assert link is not None
            yield Wire(link, end, served, release)
            release.set()


async def test_open_gives_what_the_agent_accepted_with(wire: Wire) -> None:
    channel, _ = await wire.opened_here({"offset": 5})
    assert channel.info == {"offset": 5}


async def test_channel_of_the_agent_carries_its_request(wire: Wire) -> None:
    channel, _ = await wire.opened_there()
    assert channel.info == {"kind": KIND, "topic": "t"}


async def test_open_that_is_refused_raises_the_agents_error(wire: Wire) -> None:
    opening = asyncio.ensure_future(wire.link.open({"kind": "instance"}))
    number = (await wire.end.next_event(Opened)).channel
    wire.end.mux.reset(number, "NOT_FOUND", "no such Instance")
    await wire.end.flush()
    with pytest.raises(NotFound, match="no such Instance"):
        await opening


async def test_open_that_nobody_answers_times_out_and_is_reset(wire: Wire) -> None:
    with pytest.raises(TimedOut):
        await wire.link.open({"kind": "instance"}, timeout=0.05)
    assert (await wire.end.next_event(Reset)).code == "TIMED_OUT"


async def test_open_that_is_cancelled_is_reset(wire: Wire) -> None:
    opening = asyncio.ensure_future(wire.link.open({"kind": "instance"}))
    await wire.end.next_event(Opened)
    opening.cancel()
    await wire.end.next_event(Reset)
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_bytes_arrive_in_order_and_then_the_end(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    for piece in (b"one", b"two", b"three"):
        await wire.send(number, piece)
    wire.end.mux.finish(number)
    await wire.end.flush()
    came = b""
    while data := await channel.read():
        channel.consume(len(data))
        came += data
    assert came == b"onetwothree"
    assert await channel.read() == b""


async def test_small_pieces_are_read_together_and_large_ones_as_they_came(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    for _ in range(100):
        wire.end.mux.send(number, b"x" * 100)
    await wire.end.flush()
    wire.end.mux.finish(number)
    await wire.end.flush()
    assert len(await channel.read()) == 10_000


async def test_written_bytes_arrive_with_their_message_ends(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await channel.write(b"a", more=True)
    await channel.write(b"b")
    channel.finish()
    assert await wire.end.next_event(Data) == Data(number, b"a", True)
    assert await wire.end.next_event(Data) == Data(number, b"b", False)
    await wire.end.next_event(Finished)


async def test_writer_waits_for_credit_and_goes_on_with_it(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await channel.write(bytes(MIN_WINDOW))
    waiting = asyncio.ensure_future(channel.write(b"next"))
    first = await wire.end.next_event(Data)
    assert len(first.data) == MIN_WINDOW
    assert not waiting.done()
    wire.end.mux.consume(number, MIN_WINDOW)
    await wire.end.flush()
    assert (await wire.end.next_event(Data)).data == b"next"
    await waiting


async def test_drained_waits_until_the_agent_has_consumed_everything(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await channel.drained()
    await channel.write(b"some")
    draining = asyncio.ensure_future(channel.drained())
    await wire.end.next_event(Data)
    assert not draining.done()
    wire.end.mux.consume(number, 4)
    wire.end.mux.flush_consumed()
    await wire.end.flush()
    await draining


async def test_consumption_is_reported_within_a_second_or_so(wire: Wire) -> None:
    channel, number = await wire.opened_there()
    await wire.send(number, b"few")
    channel.consume(len(await channel.read()))
    assert await wire.end.next_event(Credited) == Credited(number, 3)


async def test_reader_that_takes_nothing_stops_its_sender(wire: Wire) -> None:
    _, number = await wire.opened_there()
    await wire.send(number, bytes(4 * MIN_WINDOW))
    assert wire.end.mux.queued(number) == 3 * MIN_WINDOW
    # The rest of the link moves meanwhile.
    assert "error" in await wire.end.request("nothing", id=1)
    assert wire.end.mux.queued(number) == 3 * MIN_WINDOW


async def test_reset_by_the_agent_gives_what_came_before_it_then_its_error(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await wire.send(number, b"last words")
    wire.end.mux.reset(number, "STREAM_FAILED", "the program ended")
    await wire.end.flush()
    assert await channel.read() == b"last words"
    for _ in range(2):
        with pytest.raises(StreamFailed, match="the program ended"):
            await channel.read()
    with pytest.raises(StreamFailed):
        await channel.write(b"x")
    await channel.wait_closed()
    channel.consume(10)
    channel.finish()
    channel.reset("ANY")
    channel.accept()


async def test_reset_wakes_a_writer_that_waits(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await channel.write(bytes(MIN_WINDOW))
    waiting = asyncio.ensure_future(channel.write(b"next"))
    await wire.end.next_event(Data)
    wire.end.mux.reset(number, "NOT_FOUND", "gone")
    await wire.end.flush()
    with pytest.raises(NotFound):
        await waiting


async def test_reset_by_the_broker_reaches_the_agent_once(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    channel.reset("BODY_CUT", "the writer went away")
    channel.reset("BODY_CUT", "again")
    event = await wire.end.next_event(Reset)
    assert (event.channel, event.code, event.message) == (
        number,
        "BODY_CUT",
        "the writer went away",
    )
    assert "error" in await wire.end.request("nothing", id=1)
    assert list(wire.link.mux.channels()) == []


async def test_message_comes_whole(wire: Wire) -> None:
    channel, number = await wire.opened_there()
    await wire.send(number, b"a" * 10, more=True)
    reading = asyncio.ensure_future(channel.read_message())
    await wire.send(number, b"b" * 10, more=True)
    await wire.send(number, b"c" * 10)
    await wire.send(number, b"next")
    assert await reading == b"a" * 10 + b"b" * 10 + b"c" * 10
    channel.consume(30)
    assert await channel.read_message() == b"next"
    wire.end.mux.finish(number)
    await wire.end.flush()
    assert await channel.read_message() is None


async def test_message_larger_than_its_window_comes_whole(wire: Wire) -> None:
    """Without help its rest could never be sent: nobody consumes half a message."""
    channel, number = await wire.opened_there()
    message = os.urandom(MAX_WINDOW)
    await wire.send(number, message)
    pumping = asyncio.ensure_future(wire.pump())
    for _ in range(3):
        async with asyncio.timeout(20):
            assert await channel.read_message() == message
        channel.consume(len(message))
        wire.end.mux.send(number, message)
        await wire.end.flush()
    pumping.cancel()


async def test_reading_a_message_may_be_given_up_and_begun_again(wire: Wire) -> None:
    channel, number = await wire.opened_there()
    await wire.send(number, b"first half, ", more=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await channel.read_message()
    await wire.send(number, b"second half")
    assert await channel.read_message() == b"first half, second half"
    channel.consume(23)
    assert await wire.end.next_event(Credited) == Credited(number, 23)


async def test_message_beyond_the_limit_resets_its_channel_alone(wire: Wire) -> None:
    channel, number = await wire.opened_there()
    other, other_number = await wire.opened_there()
    wire.end.mux.send(number, bytes(MAX_MESSAGE), more=True)
    wire.end.mux.send(number, b"x")
    await wire.end.flush()
    reading = asyncio.ensure_future(channel.read_message())
    event = await wire.end.next_event(Reset)
    assert (event.channel, event.code) == (number, "FRAME_TOO_LARGE")
    with pytest.raises(FrameTooLarge):
        await reading
    await wire.send(other_number, b"fine")
    assert await other.read_message() == b"fine"


async def test_channel_is_forgotten_when_both_ends_are_done(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await channel.write(b"to")
    channel.finish()
    await wire.send(number, b"fro")
    wire.end.mux.finish(number)
    await wire.end.next_event(Finished)
    wire.end.mux.consume(number, 2)
    await wire.end.flush()
    assert await channel.read() == b"fro"
    channel.consume(3)
    assert await channel.read() == b""
    await channel.wait_closed()
    await until("the multiplexer has forgotten it", lambda: not wire.link.mux.channels())


async def test_channel_whose_handler_leaves_is_finished_and_emptied(wire: Wire) -> None:
    channel, number = await wire.opened_there()
    wire.end.mux.send(number, bytes(10_000))
    await wire.end.flush()
    await channel.read()
    wire.release.set()
    await wire.end.next_event(Finished)
    # What still comes is let go of, so that the agent can finish too.
    await wire.send(number, bytes(1000))
    wire.end.mux.finish(number)
    await wire.end.flush()
    pumping = asyncio.ensure_future(wire.pump())
    await until("the channel is over", lambda: not wire.link.mux.channels())
    pumping.cancel()


async def test_channel_whose_handler_never_accepts_is_reset(wire: Wire) -> None:
    number = wire.end.mux.open({"kind": KIND})
    await wire.end.flush()
    await wire.served.get()
    wire.release.set()
    assert (await wire.end.next_event(Reset)).channel == number


async def test_end_of_the_session_ends_its_channels(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    await wire.send(number, b"what came")
    await until("it has come", lambda: wire.link.mux.received >= 2)
    wire.link.end(SessionLost("the agent was started anew"))
    assert await channel.read() == b"what came"
    with pytest.raises(SessionLost):
        await channel.read()
    with pytest.raises(SessionLost):
        await channel.write(b"x")
    await channel.wait_closed()


async def test_much_goes_both_ways_at_once(wire: Wire) -> None:
    channel, number = await wire.opened_here()
    blocks = [os.urandom(50_000) for _ in range(60)]
    back = bytearray()

    async def echo() -> None:
        while True:
            event = await wire.end.next_event(Data)
            wire.end.mux.send(number, event.data)
            wire.end.mux.consume(number, len(event.data))
            await wire.end.flush()

    async def write() -> None:
        for block in blocks:
            await channel.write(block)

    async def read() -> None:
        while len(back) < sum(map(len, blocks)):
            data = await channel.read()
            channel.consume(len(data))
            back.extend(data)

    echoing = asyncio.ensure_future(echo())
    async with asyncio.timeout(60):
        await asyncio.gather(write(), read())
    echoing.cancel()
    assert bytes(back) == b"".join(blocks)


async def test_agent_that_does_not_read_holds_little_of_the_brokers_memory(wire: Wire) -> None:
    """It grants credit and takes nothing from its socket: the rest waits for room, unsent."""
    channel, number = await wire.opened_here()
    wire.end.websocket.transport.pause_reading()
    writer = asyncio.ensure_future(_write_for_ever(channel))
    assert channel.number == number
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.shield(writer)
    assert wire.link.mux.queued(number) <= MIN_WINDOW + 65_536
    writer.cancel()
    wire.end.websocket.transport.resume_reading()


async def _write_for_ever(channel: Channel) -> None:
    while True:
        await channel.write(bytes(65_536))
