"""Between an Instance and a Topic: batches made, acknowledged, sent again; batches unpacked."""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.session_pair import BrokerStream, SessionPair
from tests.support.waiting import until

from sth_agent import topic_input, topic_output
from sth_agent.edge_poll import EdgePoll
from sth_agent.output import LARGE_FRAME, Output
from sth_agent.output_position import OutputPosition
from sth_agent.program_input import ProgramInput
from sth_agent.topic_input import TopicInput
from sth_agent.topic_output import Producer, TopicOutput
from sth_protocol import batch, codec
from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import FrameReader

PRODUCER = bytes(range(16))


class Source:
    """A program's output socket, and the agents that publish it one after the other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "position"
        self.kept, self.program = socket.socketpair()
        self.program.setblocking(False)
        self.program.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
        self.poll = EdgePoll()
        self.troubles: list[str] = []
        self.offset = 0
        self.number = 0
        self.waiting = b""
        self._outputs: list[Output] = []
        self._published: list[TopicOutput] = []

    def publisher(self, content_type: str = frames.NDJSON) -> TopicOutput:
        """A new agent's; the one before is dead."""
        self.close_agent()
        output = Output(
            os.dup(self.kept.fileno()),
            poll=self.poll,
            position=OutputPosition(self._path),
            declared=lambda kind, provides: None,
        )
        self._outputs.append(output)
        producer = Producer("numbers", content_type, PRODUCER, 1)
        self._published.append(TopicOutput(output, producer, self.troubles.append))
        return self._published[-1]

    @property
    def position(self) -> OutputPosition:
        return self._outputs[-1].position

    def write(self, payload: bytes, *, records: bool = True) -> None:
        count = payload.count(b"\n")
        self.waiting += frames.pack_frame(
            frames.DATA,
            payload,
            flags=frames.RECORDS if records else 0,
            count=count,
            offset=self.offset,
            number=self.number,
        )
        self.offset += len(payload)
        self.number += count
        self.push()

    def end(self) -> None:
        self.waiting += frames.pack_frame(frames.END, offset=self.offset, number=self.number)
        self.push()

    def push(self) -> bool:
        try:
            while self.waiting:
                self.waiting = self.waiting[self.program.send(self.waiting) :]
        except BlockingIOError:
            return False
        return True

    def close_agent(self) -> None:
        for each in self._outputs:
            each.close()
        for published in self._published:
            published.close()

    def close(self) -> None:
        self.close_agent()
        for each in self._outputs:
            each.position.close()
        self.poll.close()
        self.kept.close()
        self.program.close()


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    made = Source(tmp_path)
    yield made
    made.close()


def acknowledge(stream: BrokerStream, last: int) -> None:
    stream.send(codec.pack([last, last]))


def payloads(stream: BrokerStream) -> list[bytes]:
    return [bytes(batch.payload_of(each, batch.verify(each))) for each in stream.messages]


async def opened(pair: SessionPair, *, next_sequence: int) -> BrokerStream:
    before = len(pair.opened_by_agent)
    await until("a channel is opened", lambda: len(pair.opened_by_agent) > before)
    stream = pair.opened_by_agent[-1]
    pair.accept(stream, next_sequence=next_sequence)
    return stream


async def begun(
    source: Source, published: TopicOutput, *, next_sequence: int = 0
) -> tuple[SessionPair, BrokerStream]:
    pair = SessionPair()
    published.session_began(pair.agent)
    if not pair.opened_by_agent:
        return pair, await opened(pair, next_sequence=next_sequence)
    stream = pair.opened_by_agent[-1]
    pair.accept(stream, next_sequence=next_sequence)
    return pair, stream


async def test_frames_become_batches(source: Source) -> None:
    _, stream = await begun(source, source.publisher())
    assert stream.info == {
        "kind": "publish",
        "topic": "numbers",
        "content_type": frames.NDJSON,
        "producer": PRODUCER,
        "epoch": 1,
    }
    source.write(b"1\n2\n")
    source.write(b"3\n")
    await until("both have come", lambda: len(stream.messages) == 2)
    headers = [batch.verify(each) for each in stream.messages]
    assert [(each.base_sequence, each.count, each.epoch) for each in headers] == [
        (0, 2, 1),
        (2, 1, 1),
    ]
    assert all(each.producer == PRODUCER for each in headers)
    assert payloads(stream) == [b"1\n2\n", b"3\n"]


async def test_batch_leaves_the_socket_when_it_is_stored(source: Source) -> None:
    _, stream = await begun(source, source.publisher())
    source.write(b"1\n2\n")
    source.write(b"3\n")
    await until("both have come", lambda: len(stream.messages) == 2)
    acknowledge(stream, 1)
    await until("the first is known", lambda: source.position.offset == 4)
    assert source.position.sequence == 2
    source.end()
    assert not stream.is_finished
    acknowledge(stream, 2)
    await until("the stream has ended", lambda: stream.is_finished)


async def test_acknowledgement_may_come_in_parts(source: Source) -> None:
    pair, stream = await begun(source, source.publisher())
    source.write(b"1\n2\n")
    await until("it has come", lambda: len(stream.messages) == 1)
    answer = codec.pack([1, 2**40])
    pair.broker.send(stream.number, answer[:5], more=True)
    pair.transfer()
    assert source.position.sequence == 0
    pair.broker.send(stream.number, answer[5:])
    pair.transfer()
    assert source.position.sequence == 2
    assert source.troubles == []


@pytest.mark.parametrize("stored", [0, 2, 3])
async def test_successor_sends_what_is_not_stored(source: Source, stored: int) -> None:
    _, first = await begun(source, source.publisher())
    source.write(b"1\n2\n")
    source.write(b"3\n")
    source.write(b"4\n")
    await until("all have come", lambda: len(first.messages) == 3)
    source.end()
    _, second = await begun(source, source.publisher(), next_sequence=stored)
    missing = [b"1\n2\n", b"3\n", b"4\n"][{0: 0, 2: 1, 3: 2}[stored] :]
    await until("the rest has come", lambda: len(second.messages) == len(missing))
    assert payloads(second) == missing
    acknowledge(second, 3)
    await until("the stream has ended", lambda: second.is_finished)


async def test_lost_session_is_followed_by_another(source: Source) -> None:
    published = source.publisher()
    pair, first = await begun(source, published)
    source.write(b"1\n")
    source.write(b"2\n")
    await until("both have come", lambda: len(first.messages) == 2)
    acknowledge(first, 0)
    await until("the first is known", lambda: source.position.sequence == 1)
    pair.lose()
    source.write(b"3\n")
    _, second = await begun(source, published, next_sequence=1)
    await until("the rest has come", lambda: len(second.messages) == 2)
    assert payloads(second) == [b"2\n", b"3\n"]
    assert source.troubles == []


@pytest.mark.parametrize("content_type", [frames.TEXT, frames.OCTET])
async def test_bytes_become_chunks_that_are_numbered(source: Source, content_type: str) -> None:
    published = source.publisher(content_type)
    _, first = await begun(source, published)
    for payload in (b"a\nb", b"c", b"\n\n"):
        source.write(payload, records=False)
    await until("all have come", lambda: len(first.messages) == 3)
    headers = [batch.verify(each) for each in first.messages]
    assert [each.base_sequence for each in headers] == [0, 1, 2]
    assert all(each.flags & batch.FLAG_CHUNK for each in headers)
    acknowledge(first, 0)
    await until("the first is known", lambda: source.position.sequence == 1)
    # Of the second the answer was lost.
    _, second = await begun(source, source.publisher(content_type), next_sequence=2)
    await until("the rest has come", lambda: len(second.messages) == 1)
    assert batch.verify(second.messages[0]).base_sequence == 2
    assert payloads(second) == [b"\n\n"]


async def test_batch_larger_than_the_socket_is_published_whole(source: Source) -> None:
    _, stream = await begun(source, source.publisher())
    small, large = b"1\n", b"x" * (frames.MAX_PAYLOAD - 1) + b"\n"
    for payload in (small, large, small):
        source.write(payload)
    await until("the first has come", lambda: source.push() or len(stream.messages) >= 1)
    assert payloads(stream) == [small]
    acknowledge(stream, 0)
    await until("all have come", lambda: source.push() and len(stream.messages) == 3)
    assert payloads(stream) == [small, large, small]
    assert source.position.cut
    acknowledge(stream, 2)
    await until("all is known", lambda: source.position.sequence == 3)
    assert not source.position.cut


async def test_large_batch_is_sent_again_from_memory(source: Source) -> None:
    """It has left the socket before it was stored."""
    published = source.publisher()
    pair, first = await begun(source, published)
    large = b"y" * (LARGE_FRAME * 4) + b"\n"
    source.write(large)
    source.write(b"2\n")
    await until("both have come", lambda: source.push() and len(first.messages) == 2)
    pair.lose()
    _, second = await begun(source, published)
    await until("both have come again", lambda: len(second.messages) == 2)
    assert payloads(second) == [large, b"2\n"]
    assert [batch.verify(each).base_sequence for each in second.messages] == [0, 1]
    acknowledge(second, 1)
    await until("all is known", lambda: source.position.sequence == 2)


async def test_session_lost_inside_a_large_batch_loses_nothing(source: Source) -> None:
    published = source.publisher()
    pair, _ = await begun(source, published)
    large = b"z" * (frames.MAX_PAYLOAD - 1) + b"\n"
    source.write(large)
    await until("it has begun to leave", lambda: source.position.cut)
    assert source.waiting
    pair.lose()
    _, second = await begun(source, published)
    await until("it has come", lambda: source.push() and len(second.messages) == 1)
    assert payloads(second) == [large]


async def test_output_that_is_not_lines_is_refused_and_said(source: Source) -> None:
    _, stream = await begun(source, source.publisher())
    source.write(b"no newline", records=False)
    await until("it is refused", lambda: stream.reset)
    assert stream.messages == []
    assert "not whole lines" in source.troubles[0]


async def test_count_of_the_runner_is_not_trusted(source: Source) -> None:
    _, stream = await begun(source, source.publisher())
    source.program.send(frames.pack_frame(frames.DATA, b"1\n2\n", flags=frames.RECORDS, count=7))
    await until("it is refused", lambda: stream.reset)
    assert stream.messages == []


@pytest.mark.parametrize(
    "frame",
    [
        frames.pack_frame(frames.DATA, b"x", flags=frames.RECORDS, offset=2),
        frames.pack_frame(frames.DATA, b"1\n" * 200_000, flags=frames.RECORDS, count=1),
        frames.pack_frame(frames.DATA, b"1\n", flags=frames.RECORDS, count=1, number=2**64 - 1),
    ],
    ids=["none", "large", "far"],
)
async def test_output_that_makes_no_batch_ends_its_publishing_alone(
    source: Source, frame: bytes
) -> None:
    pair, stream = await begun(source, source.publisher())
    source.write(b"0\n")
    source.waiting += frame + frames.pack_frame(frames.DATA, b"2\n", flags=frames.RECORDS, count=1)
    await until("the good batch has come", lambda: stream.messages)
    acknowledge(stream, 0)
    await until("it is said", lambda: source.push() and source.troubles)
    assert not pair.agent.lost
    assert payloads(stream) == [b"0\n"]


async def test_refused_publisher_tries_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_output, "RETRY_SECONDS", 0.01)
    pair, first = await begun(source, source.publisher())
    source.write(b"1\n")
    await until("it has come", lambda: first.messages)
    first.break_off("TOPIC_FULL")
    second = await opened(pair, next_sequence=0)
    await until("it has come again", lambda: second.messages)
    assert payloads(second) == [b"1\n"]
    assert "numbers takes no output" in source.troubles[0]


class Consumer:
    """A program's input socket, fed by a Topic."""

    def __init__(self) -> None:
        ours, self.program = socket.socketpair()
        self.program.setblocking(False)
        self.pair = SessionPair()
        self.troubles: list[str] = []
        self.target = ProgramInput(ours.detach(), is_taken_over=False, gone=lambda: None)
        self.input = TopicInput(
            self.target,
            topic="numbers",
            content_type="",
            instance="i",
            trouble=self.troubles.append,
        )
        self._reader = FrameReader()
        self.frames: list[frames.Frame] = []

    async def begin(self, *, offset: int = 0) -> BrokerStream:
        self.input.session_began(self.pair.agent)
        await until("a channel is opened", lambda: self.pair.opened_by_agent)
        stream = self.pair.opened_by_agent[-1]
        self.pair.accept(stream, offset=offset, content_type=frames.NDJSON)
        return stream

    def read(self) -> list[frames.Frame]:
        try:
            while data := self.program.recv(65536):
                self.frames += self._reader.feed(data)
        except BlockingIOError:
            pass
        return self.frames

    def close(self) -> None:
        self.input.close()
        self.target.close()
        self.program.close()


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    made = Consumer()
    yield made
    made.close()


def stored(payload: bytes, offset: int, *, flags: int = 0) -> bytes:
    count = 1 if flags else payload.count(b"\n")
    data = batch.encode(
        payload, producer=PRODUCER, epoch=1, base_sequence=offset, count=count, flags=flags
    )
    return b"".join(batch.stamped(data, offset, 1000))


async def test_batches_become_frames_of_records(consumer: Consumer) -> None:
    stream = await consumer.begin()
    stream.send(stored(b"1\n2\n", 0))
    stream.send(stored(b"3\n", 2))
    await until("both have come", lambda: len(consumer.read()) == 3)
    kind, first, second = consumer.frames
    assert (kind.header.type, kind.payload) == (frames.TYPE, frames.NDJSON.encode())
    assert (first.payload, first.header.count, first.header.number) == (b"1\n2\n", 2, 0)
    assert (second.payload, second.header.count, second.header.number) == (b"3\n", 1, 2)
    assert first.header.flags & frames.RECORDS
    assert consumer.target.is_fed_by_topic
    assert stream.info["topic"] == "numbers"


async def test_reader_inside_a_batch_begins_with_its_own_record(consumer: Consumer) -> None:
    stream = await consumer.begin(offset=11)
    stream.send(stored(b"a\nb\nc\n", 10))
    await until("it has come", lambda: len(consumer.read()) == 2)
    assert consumer.frames[1].payload == b"b\nc\n"
    assert consumer.frames[1].header.count == 2


async def test_chunk_has_no_records(consumer: Consumer) -> None:
    stream = await consumer.begin()
    stream.send(stored(b"bytes", 0, flags=batch.FLAG_CHUNK))
    await until("it has come", lambda: len(consumer.read()) == 2)
    assert (consumer.frames[1].payload, consumer.frames[1].header.count) == (b"bytes", 0)


async def test_batch_larger_than_the_window_passes(consumer: Consumer) -> None:
    payload = b"x" * (batch.MAX_PAYLOAD - 1) + b"\n"
    stream = await consumer.begin()
    stream.send(stored(payload, 0))
    await until("it has come", lambda: len(consumer.read()) == 2)
    assert consumer.frames[1].payload == payload


async def test_batch_is_consumed_when_the_program_has_it(consumer: Consumer) -> None:
    stream = await consumer.begin()
    size = 0
    for number in range(40):
        data = stored(b"%d\n" % number * 5000, number * 5000)
        size += len(data)
        stream.send(data)
    before = -1

    def is_still() -> bool:
        nonlocal before
        last, before = before, stream.consumed_by_agent
        consumer.pair.report()
        return last == before > 0

    await until("nothing moves", is_still)
    assert stream.consumed_by_agent < size

    def moved() -> bool:
        consumer.read()
        consumer.pair.report()
        return stream.consumed_by_agent == size

    await until("all is consumed", moved)


async def test_corrupt_batch_is_not_given_and_asked_for_again(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_input, "RETRY_SECONDS", 0.01)
    stream = await consumer.begin()
    broken = bytearray(stored(b"1\n", 0))
    broken[-2] ^= 1
    stream.send(bytes(broken))
    await until("it asks again", lambda: len(consumer.pair.opened_by_agent) == 2)
    assert stream.reset is not None
    assert stream.reset.code == "CORRUPT"
    assert len(consumer.read()) == 1
    assert "checksum" in consumer.troubles[0]


async def test_subscription_goes_on_in_the_next_session(consumer: Consumer) -> None:
    stream = await consumer.begin()
    stream.send(stored(b"1\n", 0))
    await until("it has come", lambda: len(consumer.read()) == 2)
    consumer.pair.lose()
    consumer.pair = SessionPair()
    second = await consumer.begin(offset=1)
    second.send(stored(b"2\n", 1))
    await until("the next has come", lambda: len(consumer.read()) == 3)
    assert [each.payload for each in consumer.frames[1:]] == [b"1\n", b"2\n"]
    assert consumer.frames[2].header.offset == 2
