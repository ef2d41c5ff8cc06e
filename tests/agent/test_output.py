"""An Instance's output over a real socket, to readers that come and go."""

import json
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.session_pair import BrokerStream, SessionPair
from tests.support.waiting import until

from sth_agent.edge_poll import EdgePoll
from sth_agent.output import Output
from sth_agent.output_position import OutputPosition
from sth_agent.output_reader import OutputReader
from sth_sandbox.runners import frames


@dataclass
class Program:
    """The runner's end: it writes as far as the socket takes it, and the rest when `push` is
    called."""

    socket: socket.socket
    offset: int = 0
    waiting: bytes = b""
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def declare(self, content_type: str = "text/plain", **provides: str) -> None:
        said = {"content_type": content_type, "provides": provides}
        self._write(frames.pack_frame(frames.TYPE, json.dumps(said).encode()))

    def write(self, payload: bytes) -> None:
        self._write(frames.pack_frame(frames.DATA, payload, offset=self.offset))
        self.offset += len(payload)

    def end(self) -> None:
        self._write(frames.pack_frame(frames.END, offset=self.offset))

    def push(self) -> bool:
        """Whether everything has left."""
        while self.waiting:
            try:
                sent = self.socket.send(self.waiting)
            except BlockingIOError:
                return False
            self.waiting = self.waiting[sent:]
        return True

    def _write(self, data: bytes) -> None:
        self.waiting += data
        self.push()


class Place:
    """A socket pair, the position's file, and one agent's view of them after the other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "position"
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        # As much as the spawner of an ordinary user can have on an ordinary machine.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
        self.kept = ours
        self.program = Program(theirs)
        self.poll = EdgePoll()
        self.outputs: list[Output] = []

    def output(self) -> Output:
        """An agent that has just attached; the one before is dead."""
        for each in self.outputs:
            each.close()
        output = Output(
            os.dup(self.kept.fileno()),
            poll=self.poll,
            position=OutputPosition(self._path),
            declared=lambda kind, provides: self.program.said.append((kind, provides)),
        )
        self.outputs.append(output)
        return output

    def close(self) -> None:
        for each in self.outputs:
            each.close()
            each.position.close()
        self.poll.close()
        self.kept.close()
        self.program.socket.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def reading(pair: SessionPair, output: Output) -> BrokerStream:
    stream, channel = pair.open(kind="instance", stream="output")
    OutputReader(output, channel, "text/plain")
    return stream


async def test_output_reaches_its_reader_and_leaves_the_socket(place: Place) -> None:
    pair = SessionPair()
    place.program.declare("application/octet-stream", provides="topic")
    output = place.output()
    stream = reading(pair, output)
    place.program.write(b"hello ")
    place.program.write(b"world")
    place.program.end()
    await until("the stream has ended", lambda: stream.is_finished)
    assert stream.data == b"hello world"
    assert stream.info == {"offset": 0, "content_type": "text/plain"}
    assert place.program.said == [("application/octet-stream", {"provides": "topic"})]
    pair.report()
    await until("it was consumed", lambda: output.position.offset == 11)
    rest = place.kept.recv(1000)
    assert frames.unpack_header(rest).type == frames.END


async def test_output_says_what_it_is_before_anybody_reads(place: Place) -> None:
    place.output()
    place.program.declare("application/x-ndjson")
    place.program.write(b"{}\n")
    await until("it was declared", lambda: place.program.said)
    assert place.program.said == [("application/x-ndjson", {})]


async def test_output_that_is_not_consumed_stays_in_the_socket(place: Place) -> None:
    pair = SessionPair(consumes=False)
    stream = reading(pair, place.output())
    place.program.declare()
    place.program.write(b"0123456789")
    await until("it has arrived", lambda: len(stream.data) == 10)
    second = reading(SessionPair(), place.output())
    await until("it has arrived again", lambda: second.data == b"0123456789")


async def test_reader_that_breaks_leaves_the_rest_to_the_next(place: Place) -> None:
    pair = SessionPair(consumes=False)
    output = place.output()
    first = reading(pair, output)
    place.program.declare()
    for _ in range(4):
        place.program.write(b"0123456789")
    await until("it has arrived", lambda: len(first.data) == 40)
    first.consume(13)
    first.break_off()
    await until("what was consumed is known", lambda: output.position.offset == 13)
    second = reading(SessionPair(), output)
    place.program.end()
    await until("the rest has arrived", lambda: second.is_finished)
    assert second.info["offset"] == 13
    assert second.data == (b"0123456789" * 4)[13:]


async def test_successor_of_a_killed_agent_goes_on_where_its_reader_stood(place: Place) -> None:
    pair = SessionPair(consumes=False)
    first = reading(pair, place.output())
    place.program.declare()
    for _ in range(4):
        place.program.write(b"0123456789")
    await until("it has arrived", lambda: len(first.data) == 40)
    first.consume(25)
    pair.report()
    output = place.outputs[-1]
    await until("what was consumed is known", lambda: output.position.offset == 25)
    second = reading(SessionPair(), place.output())
    place.program.end()
    await until("the rest has arrived", lambda: second.is_finished)
    assert second.info["offset"] == 25
    assert first.data[:25] + second.data == b"0123456789" * 4


async def one_turn(place: Place, output: Output, begun: int, wanted: int, turn: int) -> bytes:
    """A reader that consumes some, and breaks off or loses its session; what it consumed."""
    pair = SessionPair(consumes=False)
    stream = reading(pair, output)

    def has_come() -> bool:
        place.program.push()
        return stream.unconsumed >= min(wanted, 16 * 1024) or stream.is_finished

    await until("something has come", has_come)
    assert stream.info["offset"] == begun
    count = min(wanted, stream.unconsumed)
    stream.consume(count)
    if turn % 2:
        stream.break_off()
    else:
        pair.report()
    await until("it is known", lambda: output.position.offset == begun + count)
    pair.lose()
    return stream.data[:count]


async def test_nothing_is_lost_or_doubled_over_readers_that_break_and_agents_that_die(
    place: Place,
) -> None:
    chance = random.Random(7)
    place.program.declare()
    written = b""
    while len(written) < 3_000_000:
        payload = chance.randbytes(chance.choice((1, 50, 3000, 65536, 90000)))
        written += payload
        place.program.write(payload)
    place.program.end()
    received = b""
    output = place.output()
    for turn in range(300):
        received += await one_turn(place, output, len(received), chance.randint(1, 40000), turn)
        if turn % 2 == 0:
            output = place.output()
    rest = reading(SessionPair(), output)
    await until("the rest has come", lambda: place.program.push() and rest.is_finished)
    assert received + rest.data == written


@pytest.mark.parametrize("size", [200_000, frames.MAX_PAYLOAD])
async def test_frame_larger_than_the_socket_passes(place: Place, size: int) -> None:
    """Its first part has to leave before its last can come."""
    pair = SessionPair()
    payloads = [os.urandom(size), b"small", os.urandom(size)]
    output = place.output()
    stream = reading(pair, output)
    place.program.declare()
    for payload in payloads:
        place.program.write(payload)
    place.program.end()

    def moved() -> bool:
        place.program.push()
        pair.report()
        return stream.is_finished

    await until("everything has passed", moved)
    assert stream.data == b"".join(payloads)
    assert not output.position.cut


async def test_reader_that_breaks_inside_a_large_frame_leaves_the_rest(place: Place) -> None:
    payload = os.urandom(900_000)
    output = place.output()
    first = reading(SessionPair(), output)
    place.program.declare()
    place.program.write(payload)
    place.program.end()
    await until("a part has come", lambda: place.program.push() or len(first.data) > 300_000)
    first.break_off()
    at = len(first.data)
    await until("it is known", lambda: output.position.offset == at)
    pair = SessionPair()
    second = reading(pair, output)

    def moved() -> bool:
        place.program.push()
        pair.report()
        return second.is_finished

    await until("the rest has come", moved)
    assert first.data + second.data == payload


async def test_agent_killed_inside_a_large_frame_says_so(place: Place) -> None:
    """The header is gone: what follows cannot be told apart, and no wrong byte is given."""
    pair = SessionPair()
    first = reading(pair, place.output())
    place.program.declare()
    place.program.write(os.urandom(900_000))
    await until("a part has come", lambda: place.program.push() or len(first.data) > 300_000)
    pair.report()
    output = place.outputs[-1]
    await until("the socket was emptied into it", lambda: output.position.cut)
    second = reading(SessionPair(), place.output())
    await until("the reader is told", lambda: second.reset)
    assert second.reset is not None
    assert second.reset.code == "STREAM_FAILED"
    assert second.data == b""


async def test_program_that_dies_in_the_middle_is_no_end(place: Place) -> None:
    pair = SessionPair()
    stream = reading(pair, place.output())
    place.program.declare()
    place.program.write(b"half")
    place.program.socket.close()
    await until("it has come", lambda: stream.data == b"half")
    assert stream.reset is None
    pair.report()
    await until("the reader is told", lambda: stream.reset)
    assert stream.reset is not None
    assert stream.reset.code == "STREAM_FAILED"
    assert not stream.is_finished


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        frames.pack_frame(frames.TYPE, b"not json"),
        frames.pack_frame(frames.TYPE, b"[]"),
        (2**31).to_bytes(4, "little") + bytes([frames.DATA]) + bytes(27),
    ],
)
async def test_output_that_is_broken_fails_its_stream_alone(place: Place, garbage: bytes) -> None:
    stream = reading(SessionPair(), place.output())
    place.program.socket.send(garbage)
    await until("the reader is told", lambda: stream.reset)
    assert stream.reset is not None
    assert stream.reset.code == "STREAM_FAILED"


async def test_reader_without_credit_holds_the_program_back(place: Place) -> None:
    """Nothing is read ahead beyond what the reader may be sent; nothing turns in circles."""
    stream = reading(SessionPair(consumes=False), place.output())
    place.program.declare()
    for _ in range(60):
        place.program.write(b"x" * 60_000)
    await until("the window is full", lambda: stream.unconsumed == 16 * 1024)
    assert place.program.waiting
    stream.consume(stream.unconsumed)
    await until("more has come", lambda: len(stream.data) > 16 * 1024)


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


async def test_many_small_frames_pass(place: Place) -> None:
    """The buffer holds few small ones, whatever their size."""
    data = os.urandom(50_000)
    pair = SessionPair()
    stream = reading(pair, place.output())
    place.program.declare()
    for piece in pieces_of(data, 10):
        place.program.write(piece)
    place.program.end()

    def moved() -> bool:
        place.program.push()
        pair.report()
        return stream.is_finished

    await until("everything has passed", moved)
    assert stream.data == data
