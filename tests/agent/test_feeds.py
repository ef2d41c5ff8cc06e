"""Bodies of requests on their way into a program, one after the other."""

import os
import socket
from collections.abc import AsyncIterator

import pytest
from tests.support.session_pair import BrokerStream, SessionPair
from tests.support.waiting import until

from sth_agent.feeds import Feeder
from sth_agent.program_input import ProgramInput, StandardInput
from sth_protocol.errors import StreamFailed
from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Frame, FrameReader

TEXT = "text/plain"


class Place:
    """A program's input: the agent's target, and the runner's end."""

    def __init__(self, *, is_taken_over: bool = False) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.pair = SessionPair()
        self.target = ProgramInput(ours.detach(), is_taken_over=is_taken_over, gone=self.gone)
        self.feeder = Feeder(self.target)
        self._reader = FrameReader()
        self.frames: list[Frame] = []

    def gone(self) -> None:
        self.feeder.fail(StreamFailed("the program takes no more"))

    def post(self, content_type: str = TEXT, *, end: bool = False) -> BrokerStream:
        stream, channel = self.pair.open(stream="input", content_type=content_type, end=end)
        self.feeder.serve(channel)
        return stream

    def read(self) -> list[Frame]:
        """All frames that the runner has got so far."""
        try:
            while data := self.theirs.recv(65536):
                self.frames += self._reader.feed(data)
        except BlockingIOError:
            pass
        return self.frames

    def data(self) -> bytes:
        return b"".join(each.payload for each in self.read() if each.header.type == frames.DATA)

    def types(self) -> list[int]:
        return [each.header.type for each in self.read()]

    def close(self) -> None:
        self.target.close()
        self.theirs.close()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    made.close()


async def test_body_reaches_the_program_and_is_answered(place: Place) -> None:
    post = place.post(end=True)
    post.send(b"hello ")
    post.send(b"world")
    post.finish()
    await until("it is answered", lambda: post.is_finished)
    assert place.types() == [frames.TYPE, frames.DATA, frames.DATA, frames.END]
    first, *_, last = place.frames
    assert first.payload == TEXT.encode()
    assert first.header.flags & frames.FEED_END
    assert [each.header.offset for each in place.frames[1:3]] == [0, 6]
    assert last.header.offset == 11
    assert place.data() == b"hello world"


async def test_stream_stays_open_for_the_next_body(place: Place) -> None:
    for text in (b"one", b"two"):
        post = place.post()
        post.send(text)
        post.finish()
        await until("it is answered", lambda: post.is_finished)  # noqa: B023 - awaited here
    assert place.types() == [frames.TYPE, frames.DATA, frames.DATA]
    assert place.data() == b"onetwo"


async def test_second_writer_waits_for_its_turn(place: Place) -> None:
    first, second = place.post(), place.post()
    second.send(b"second")
    second.finish()
    first.send(b"first")
    await until("the first has come", lambda: place.data() == b"first")
    assert first.is_accepted
    assert not second.is_accepted
    first.finish()
    await until("the second is answered", lambda: second.is_finished)
    assert place.data() == b"firstsecond"


async def test_writer_that_breaks_off_is_no_end(place: Place) -> None:
    first = place.post(end=True)
    first.send(b"half")
    await until("it has come", lambda: place.data() == b"half")
    first.break_off("BODY_CUT")
    second = place.post(end=True)
    second.send(b", whole")
    second.finish()
    await until("it is answered", lambda: second.is_finished)
    assert place.types() == [frames.TYPE, frames.DATA, frames.DATA, frames.END]
    assert place.data() == b"half, whole"


async def test_waiting_writer_that_breaks_off_leaves_the_queue(place: Place) -> None:
    first, second, third = place.post(), place.post(), place.post()
    second.send(b"never")
    second.break_off()
    first.finish()
    third.send(b"third")
    third.finish()
    await until("the third is answered", lambda: third.is_finished)
    assert place.data() == b"third"


@pytest.mark.parametrize(
    ("content_type", "code"),
    [("", "NOT_ACCEPTABLE"), ("application/x-ndjson", "UNSUPPORTED_MEDIA_TYPE")],
)
async def test_writer_of_another_type_is_refused(
    place: Place, content_type: str, code: str
) -> None:
    first = place.post()
    second = place.post(content_type)
    await until("it is refused", lambda: second.reset)
    assert second.reset is not None
    assert second.reset.code == code
    assert first.is_accepted


async def test_writer_after_the_end_is_refused(place: Place) -> None:
    first, waiting = place.post(end=True), place.post()
    first.finish()
    await until("it is answered", lambda: first.is_finished)
    late = place.post()
    await until("both are refused", lambda: late.reset and waiting.reset)
    assert late.reset is not None
    assert late.reset.code == "CONFLICT"


async def test_writer_is_refused_while_a_topic_feeds(place: Place) -> None:
    place.target.is_fed_by_topic = True
    post = place.post()
    await until("it is refused", lambda: post.reset)
    assert post.reset is not None
    assert (post.reset.code, post.reset.message) == (
        "METHOD_NOT_ALLOWED",
        "Input provided in other way",
    )


async def test_program_that_does_not_read_holds_its_writer_back(place: Place) -> None:
    """Consumed is only what the program's socket has taken."""
    post = place.post()
    post.send(b"x" * 4_000_000)
    sent = 0

    def is_still() -> bool:
        nonlocal sent
        before, sent = sent, post.consumed_by_agent
        place.pair.report()
        return sent == before > 0

    await until("nothing moves", is_still)
    assert sent < 4_000_000
    received = 0

    def moved() -> bool:
        nonlocal received
        received = len(place.data())
        place.pair.report()
        return received == 4_000_000

    await until("all has come", moved)


async def test_program_that_is_gone_fails_its_writers(place: Place) -> None:
    first, second = place.post(), place.post()
    place.theirs.close()
    first.send(b"x")
    await until("both hear it", lambda: first.reset and second.reset)
    assert first.reset is not None
    assert first.reset.code == "STREAM_FAILED"
    late = place.post()
    await until("so does a later one", lambda: late.reset)


async def test_successor_writes_nothing_until_the_runner_has_answered() -> None:
    place = Place(is_taken_over=True)
    post = place.post(end=True)
    post.send(b"more")
    post.finish()
    await until("it has arrived here", lambda: place.pair.channels)
    place.pair.transfer()
    assert place.read() == []
    place.target.resynced({"offset": 10, "sequence": 2, "content_type": TEXT, "ended": False})
    await until("it is answered", lambda: post.is_finished)
    assert place.types() == [frames.DATA, frames.END]
    assert place.frames[0].header.offset == 10
    assert place.frames[0].header.number == 2
    place.close()


async def test_successor_learns_that_the_input_had_ended() -> None:
    place = Place(is_taken_over=True)
    place.target.resynced({"offset": 10, "sequence": 0, "content_type": TEXT, "ended": True})
    post = place.post()
    await until("it is refused", lambda: post.reset)
    place.close()


async def test_standard_input_is_plain_bytes_and_ends() -> None:
    reader, writer = os.pipe()
    ended: list[bool] = []
    target = StandardInput(
        writer, is_closed=False, ended=lambda: ended.append(True), gone=lambda: None
    )
    feeder = Feeder(target)
    pair = SessionPair()
    stream, channel = pair.open(stream="stdin", end=True)
    feeder.serve(channel)
    stream.send(b"hello")
    stream.finish()
    await until("it is answered", lambda: stream.is_finished)
    assert ended == [True]
    assert os.read(reader, 100) == b"hello"
    assert os.read(reader, 100) == b""
    late, channel = pair.open(stream="stdin", end=True)
    feeder.serve(channel)
    await until("it is refused", lambda: late.reset)
    os.close(reader)
