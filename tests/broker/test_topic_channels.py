"""Topics over the channels of agents, joined by two real multiplexers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from tests.support.batches import PRODUCER, chunk, lines
from tests.support.channel_pair import AgentStream, ChannelPair
from tests.support.memory_store import MemoryRecords, MemoryTopics
from tests.support.simulated_files import SimulatedFiles
from tests.support.topics import (
    NDJSON,
    SPACE,
    Clock,
    MemoryStore,
    disk_store,
    memory_store,
    publish,
    read,
)

from sth_broker.channel import Channel
from sth_broker.topics import TopicService
from sth_protocol import batch, codec
from sth_protocol.batch import Buffer
from sth_protocol.errors import SthError, StorageFailed


class Agent:
    """Opens channels, and serves the broker's end as the gateway does."""

    def __init__(self, topics: TopicService) -> None:
        self.topics = topics
        self.pair = ChannelPair(SPACE)
        self._serving: set[asyncio.Task[None]] = set()

    async def publish(self, **more: object) -> AgentStream:
        request = {
            "kind": "publish",
            "topic": "t",
            "content_type": NDJSON,
            "producer": PRODUCER,
            "epoch": 1,
            **more,
        }
        return await self._open(request, self.topics.serve_publish)

    async def subscribe(self) -> AgentStream:
        request = {"kind": "subscribe", "topic": "t", "content_type": NDJSON, "instance": "i"}
        return await self._open(request, self.topics.serve_subscribe)

    async def _open(
        self,
        request: Mapping[str, object],
        handler: Callable[[ChannelPair, Channel], Awaitable[None]],
    ) -> AgentStream:
        stream, channel = await self.pair.open(request)

        async def serve() -> None:
            try:
                await handler(self.pair, channel)
            except SthError as error:
                channel.reset(error.code, error.message)
            finally:
                channel.abandon()

        task = asyncio.create_task(serve())
        self._serving.add(task)
        await stream.until(lambda end: end.info is not None or end.reset)
        return stream

    async def close(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def ended(self) -> None:
        """Every channel so far is served to its end."""
        await asyncio.wait_for(asyncio.gather(*self._serving), 10)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    store = memory_store()
    topics = TopicService(store, clock=Clock())
    agent = Agent(topics)
    yield agent
    await agent.close()
    await topics.close()


def acknowledged(stream: AgentStream) -> list[object]:
    """The last acknowledgement."""
    found: list[object] = codec.unpack(stream.messages[-1])
    return found


async def test_published_batches_are_acknowledged_when_stored(agent: Agent) -> None:
    stream = await agent.publish()
    assert stream.info == {"next_sequence": 0}
    await stream.send(lines("a", "b"))
    await stream.send(lines("c", base_sequence=2))
    await stream.until(lambda end: end.messages and acknowledged(end) == [2, 2])
    await stream.finish()
    await stream.until(lambda end: end.finished)
    assert await read(agent.topics, "t", 6) == b"a\nb\nc\n"


async def test_many_batches_are_under_way_at_once(agent: Agent) -> None:
    stream = await agent.publish()
    for number in range(500):
        await stream.send(lines("x" * 500, base_sequence=number))
    await stream.finish()
    await stream.until(lambda end: end.finished)
    assert acknowledged(stream) == [499, 499]
    assert len(await read(agent.topics, "t", 501 * 500)) == 501 * 500


async def test_batch_larger_than_the_window_arrives(agent: Agent) -> None:
    stream = await agent.publish()
    data = lines("x" * (batch.MAX_PAYLOAD - 1))
    await stream.send(data)
    await stream.until(lambda end: end.messages)
    subscriber = await agent.subscribe()
    await subscriber.until(lambda end: end.messages)
    assert subscriber.messages[0][64:] == data[64:]


async def test_batch_sent_again_answers_its_old_offset(agent: Agent) -> None:
    await publish(agent.topics, "t", b"other\n")
    stream = await agent.publish()
    for _ in range(3):
        await stream.send(lines("a", "b"))
    await stream.finish()
    await stream.until(lambda end: end.finished)
    assert acknowledged(stream) == [1, 2]
    again = await agent.publish()
    assert again.info == {"next_sequence": 2}
    assert await read(agent.topics, "t", 10) == b"other\na\nb\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lines("a", base_sequence=5), "SEQUENCE_GAP"),
        (lines("a", base_sequence=1), "SEQUENCE_GAP"),
        (b"nonsense", "BAD_FRAME"),
        (lines("a", base_sequence=2) + b"x", "BAD_FRAME"),
        (lines("a", base_sequence=2)[:-2] + b"b\n", "CORRUPT"),
        (lines("a", base_sequence=2, producer=bytes(16)), "BAD_FRAME"),
        (lines("a", base_sequence=2, epoch=2), "BAD_FRAME"),
        (chunk(b"a\n", base_sequence=2), "BAD_FRAME"),
        (
            batch.encode(b"a\nb\n", producer=PRODUCER, epoch=1, base_sequence=2, count=1),
            "BAD_FRAME",
        ),
        (bytes(batch.MAX_BATCH + 1), "FRAME_TOO_LARGE"),
    ],
)
async def test_batch_that_does_not_fit_is_refused_and_not_stored(
    agent: Agent, data: bytes, code: str
) -> None:
    first = await agent.publish()
    await first.send(lines("one", "two"))
    await first.until(lambda end: end.messages)
    await first.send(data)
    await first.until(lambda end: end.reset)
    assert first.reset == code
    again = await agent.publish()
    assert again.info == {"next_sequence": 2}
    await again.send(lines("three", base_sequence=2))
    await again.until(lambda end: end.messages)
    assert await read(agent.topics, "t", 14) == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"producer": b"short"}, "BAD_REQUEST"),
        ({"producer": "text"}, "BAD_REQUEST"),
        ({"epoch": 0}, "BAD_REQUEST"),
        ({"epoch": None}, "BAD_REQUEST"),
        ({"topic": "a/b"}, "BAD_NAME"),
        ({"topic": None}, "BAD_REQUEST"),
        ({"content_type": 7}, "BAD_REQUEST"),
        ({"content_type": "text/html"}, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_publishing_with_a_bad_request_is_refused(
    agent: Agent, request_fields: dict[str, object], code: str
) -> None:
    stream = await agent.publish(**request_fields)
    assert stream.reset == code


async def test_older_epoch_is_fenced_off(agent: Agent) -> None:
    newer = await agent.publish(epoch=2)
    await newer.send(lines("new", epoch=2))
    await newer.until(lambda end: end.messages)
    older = await agent.publish(epoch=1)
    assert older.reset == "PRODUCER_FENCED"


async def test_wrong_type_is_refused(agent: Agent) -> None:
    await publish(agent.topics, "t", b"text", content_type="text/plain")
    for stream in (await agent.publish(), await agent.subscribe()):
        assert stream.reset == "UNSUPPORTED_MEDIA_TYPE"


async def test_chunks_are_published_to_a_topic_of_bytes(agent: Agent) -> None:
    stream = await agent.publish(content_type="application/octet-stream")
    await stream.send(chunk(b"\x00\xff"))
    await stream.until(lambda end: end.messages)
    assert await read(agent.topics, "t", 2) == b"\x00\xff"


async def test_subscriber_gets_stored_batches_as_they_are(agent: Agent) -> None:
    subscriber = await agent.subscribe()
    assert subscriber.info == {"offset": 0, "content_type": NDJSON}
    stream = await agent.publish()
    data = lines("a", "b")
    await stream.send(data)
    await subscriber.until(lambda end: end.messages)
    found = subscriber.messages[0]
    assert (found[:48], found[64:]) == (data[:48], data[64:])
    assert batch.verify(found).base_offset == 0


async def test_subscriber_that_consumed_is_not_given_it_again(agent: Agent) -> None:
    await publish(agent.topics, "t", b"a\n")
    first = await agent.subscribe()
    await first.until(lambda end: end.messages)
    await first.consume_all()
    await first.finish()
    await agent.ended()
    again = await agent.subscribe()
    assert again.info == {"offset": 1, "content_type": NDJSON}


async def test_subscriber_that_broke_is_given_the_rest_again(agent: Agent) -> None:
    first = await agent.subscribe()
    first.consumes = False
    for number in range(3):
        await publish(agent.topics, "t", b"%d\n" % number)
    await first.until(lambda end: len(end.messages) == 3)
    agent.pair.agent.consume(first.number, len(first.messages[0]) + 10)
    await first.break_off()
    await agent.ended()
    again = await agent.subscribe()
    assert again.info == {"offset": 1, "content_type": NDJSON}


async def test_subscriber_that_stops_slows_nobody(agent: Agent) -> None:
    stopped = await agent.subscribe()
    stopped.consumes = False
    await publish(agent.topics, "t", b"".join(b"%06d\n" % number for number in range(300_000)))
    await publish(agent.topics, "other", b"x\n")
    assert await read(agent.topics, "other", 2) == b"x\n"
    assert sum(map(len, stopped.messages)) < 1 << 20
    await stopped.consume_all()
    await stopped.until(lambda end: sum(map(len, end.messages)) > 7 * 300_000)


async def test_subscribers_and_http_readers_all_get_everything(agent: Agent) -> None:
    subscriber = await agent.subscribe()
    async with agent.topics.read_stream(SPACE, "t") as stream:
        await publish(agent.topics, "t", b"a\n")
        assert await anext(stream) == b"a\n"
        await subscriber.until(lambda end: end.messages)


async def test_subscriber_is_told_that_the_topic_is_removed(agent: Agent) -> None:
    subscriber, publisher = await agent.subscribe(), await agent.publish()
    await publisher.send(lines("a"))
    await subscriber.until(lambda end: end.messages)
    await agent.topics.delete(SPACE, "t")
    await subscriber.until(lambda end: end.reset)
    assert subscriber.reset == "NOT_FOUND"


async def test_disk_that_refuses_breaks_the_channel_and_the_rest_is_sent_again(
    tmp_path: Path,
) -> None:
    disk = SimulatedFiles()
    store = disk_store(tmp_path, segment_bytes=1 << 20, files=lambda _: disk)
    topics = TopicService(store, clock=Clock())
    agent = Agent(topics)
    stream = await agent.publish()
    await stream.send(lines("a"))
    await stream.until(lambda end: end.messages)
    disk.failing_syncs = 1
    await stream.send(lines("b", base_sequence=1))
    await stream.until(lambda end: end.reset)
    assert stream.reset == "STORAGE_FAILED"
    again = await agent.publish()
    assert again.info == {"next_sequence": 1}
    await again.send(lines("b", base_sequence=1))
    await again.until(lambda end: end.messages)
    assert acknowledged(again) == [1, 1]
    assert await read(topics, "t", 4) == b"a\nb\n"
    await agent.close()
    await topics.close()
    await store.close()


async def turns() -> None:
    """Let the loop turn until nothing is left to do: nothing here waits for a thread."""
    for _ in range(100):
        await asyncio.sleep(0)


class HeldTopics(MemoryTopics):
    """Stores at once, and answers when `release` says."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[asyncio.Future[int]] = []

    def append(
        self, log: str, batches: Sequence[Buffer], *, expected_tail: int, time_ms: int
    ) -> asyncio.Future[int]:
        stored = super().append(log, batches, expected_tail=expected_tail, time_ms=time_ms)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: stored.exception())
        self.held.append(answer)
        return answer

    def release(self, result: int | Exception) -> None:
        held, self.held = self.held, []
        for each in held:
            if isinstance(result, Exception):
                each.set_exception(result)
            else:
                each.set_result(result)


@pytest.mark.parametrize("stored", [True, False])
async def test_channel_is_accepted_only_when_what_it_skips_is_durable(stored: bool) -> None:
    held = HeldTopics()
    topics = TopicService(MemoryStore(MemoryRecords(), held), clock=Clock())
    agent = Agent(topics)
    first = await agent.publish()
    await first.send(lines("a"))
    await turns()
    assert held.held
    opening = asyncio.ensure_future(agent.publish())
    await turns()
    assert not opening.done()
    held.release(1 if stored else StorageFailed("the disk refused"))
    second = await opening
    if stored:
        assert second.info == {"next_sequence": 1}
    else:
        assert second.reset == "STORAGE_FAILED"
    await agent.close()
    await topics.close()


async def test_full_topic_withholds_acknowledgements_until_it_is_read(tmp_path: Path) -> None:
    store = disk_store(tmp_path, segment_bytes=1000)
    topics = TopicService(store, clock=Clock(), quota_bytes=5000)
    agent = Agent(topics)
    stream = await agent.publish()
    for number in range(20):
        await stream.send(lines("x" * 900, base_sequence=number))
    await stream.finish()
    await stream.until(lambda end: end.messages)
    assert not stream.finished
    subscriber = await agent.subscribe()
    await stream.until(lambda end: end.finished)
    assert acknowledged(stream) == [19, 19]
    await subscriber.until(lambda end: len(end.messages) == 20)
    await agent.close()
    await topics.close()
    await store.close()


async def test_agent_that_gives_up_on_a_full_topic_leaves_nothing_waiting(tmp_path: Path) -> None:
    store = disk_store(tmp_path, segment_bytes=1000)
    topics = TopicService(store, clock=Clock(), quota_bytes=3000)
    agent = Agent(topics)
    stream = await agent.publish()
    for number in range(10):
        await stream.send(lines("x" * 900, base_sequence=number))
    await stream.until(lambda end: end.messages and acknowledged(end) == [2, 2])
    await stream.break_off()
    await agent.ended()
    again = await agent.publish()
    assert again.info == {"next_sequence": 3}
    await agent.close()
    await topics.close()
    await store.close()
