"""Topics, as the API uses them, on the embedded store and on one of opaque messages."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.simulated_files import SimulatedFiles
from tests.support.topics import (
    NDJSON,
    SPACE,
    WAIT_SECONDS,
    Body,
    Broker,
    Clock,
    disk_store,
    memory_store,
    publish,
    read,
)

from sth_broker.store import open_store
from sth_broker.topics import TopicService
from sth_protocol.errors import (
    BadName,
    BodyCut,
    Conflict,
    NotFound,
    StorageFailed,
    TooLarge,
    TopicFull,
    UnsupportedMediaType,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["embedded", "memory"])
async def topics(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[TopicService]:
    store = open_store(tmp_path) if request.param == "embedded" else memory_store()
    service = TopicService(store, clock=clock)
    yield service
    await service.close()
    await store.close()


# -- what there is


async def test_topics_are_made_listed_and_deleted(topics: TopicService) -> None:
    made = await topics.create(SPACE, "b", "text/plain; charset=utf-8")
    assert (made.name, made.content_type) == ("b", "text/plain")
    await topics.create(SPACE, "a", NDJSON)
    await topics.create("other", "a", NDJSON)
    assert [each.name for each in await topics.list(SPACE)] == ["a", "b"]
    assert await topics.get(SPACE, "b") == made
    with pytest.raises(Conflict):
        await topics.create(SPACE, "a", NDJSON)
    await topics.delete(SPACE, "a")
    assert [each.name for each in await topics.list(SPACE)] == ["b"]
    for attempt in (topics.delete(SPACE, "a"), topics.get(SPACE, "a")):
        with pytest.raises(NotFound):
            await attempt
    assert (await topics.get("other", "a")).space == "other"


@pytest.mark.parametrize("name", ["", "a/b", "..", "ü", "x" * 129])
async def test_topics_with_a_bad_name_are_refused(topics: TopicService, name: str) -> None:
    with pytest.raises(BadName):
        await topics.create(SPACE, name, NDJSON)
    with pytest.raises(BadName):
        await publish(topics, name, b"a\n")


async def test_topics_keep_the_type_they_were_made_with(topics: TopicService) -> None:
    await publish(topics, "t", b"a\n", content_type="text/x-ndjson")
    assert (await topics.get(SPACE, "t")).content_type == "text/x-ndjson"
    await publish(topics, "t", b"b\n", content_type=NDJSON)
    await publish(topics, "t", b"c\n", content_type=None)
    with pytest.raises(UnsupportedMediaType):
        await publish(topics, "t", b"d\n", content_type="text/plain")
    with pytest.raises(UnsupportedMediaType):
        async with topics.read_stream(SPACE, "t", "application/octet-stream"):
            pass
    with pytest.raises(UnsupportedMediaType):
        await publish(topics, "t", b"d\n", content_type="text/html")
    assert await read(topics, "t", 6) == b"a\nb\nc\n"


async def test_topics_are_made_once_by_many_at_the_same_time(topics: TopicService) -> None:
    counts = await asyncio.gather(*(publish(topics, "t", b"x\n") for _ in range(10)))
    assert counts == [1] * 10
    assert len(await topics.list(SPACE)) == 1
    assert await read(topics, "t", 20) == b"x\n" * 10


async def test_topics_of_spaces_are_apart(topics: TopicService) -> None:
    await publish(topics, "t", b"mine\n")
    async with topics.read_stream("other", "t") as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await publish(topics, "t", b"mine again\n")
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_topic_deleted_tells_readers_and_begins_anew(topics: TopicService) -> None:
    await publish(topics, "t", b"old\n")
    async with topics.read_stream(SPACE, "t") as stream:
        assert await anext(stream) == b"old\n"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await topics.delete(SPACE, "t")
        with pytest.raises(NotFound):
            await waiting
    await publish(topics, "t", b"new\n")
    assert await read(topics, "t", 4) == b"new\n"


# -- publishing


async def test_publish_adds_the_newline_that_the_last_line_lacks(topics: TopicService) -> None:
    assert await publish(topics, "t", b'{"a":1}\n{"b"', b":2}") == 2
    assert await read(topics, "t", 16) == b'{"a":1}\n{"b":2}\n'


async def test_publish_of_nothing_stores_nothing(topics: TopicService) -> None:
    assert await publish(topics, "t") == 0
    assert await publish(topics, "t", b"") == 0


async def test_publish_of_a_slow_writer_is_seen_before_it_ends(topics: TopicService) -> None:
    slow = Body()
    publishing = asyncio.ensure_future(topics.publish_stream(SPACE, "t", NDJSON, aiter(slow)))
    async with asyncio.timeout(WAIT_SECONDS), topics.read_stream(SPACE, "t", NDJSON) as stream:
        for number in range(3):
            slow.send(b"line %d\npart of " % number)
            prefix = b"part of " if number else b""
            assert await anext(stream) == prefix + b"line %d\n" % number
        slow.end()
        assert await anext(stream) == b"part of \n"
    assert (await publishing).records == 4


async def test_publish_of_text_without_a_newline_is_seen_before_it_ends(
    topics: TopicService,
) -> None:
    slow = Body()
    await topics.create(SPACE, "t", "text/plain")
    publishing = asyncio.ensure_future(topics.publish_stream(SPACE, "t", "text/plain", aiter(slow)))
    async with asyncio.timeout(WAIT_SECONDS), topics.read_stream(SPACE, "t") as stream:
        slow.send(b"prompt> ")
        assert await anext(stream) == b"prompt> "
        slow.end()
    assert (await publishing).size == 8


async def test_publish_cut_in_the_middle_stores_complete_lines(topics: TopicService) -> None:
    slow = Body()
    slow.send(b"one\ntwo\nthr")
    slow.cut(BodyCut("the body ended before its end"))
    with pytest.raises(BodyCut):
        await topics.publish_stream(SPACE, "t", NDJSON, aiter(slow))
    await publish(topics, "t", b"next\n")
    assert await read(topics, "t", 13) == b"one\ntwo\nnext\n"


async def test_publish_of_too_long_a_line_stores_the_lines_before(topics: TopicService) -> None:
    with pytest.raises(TooLarge):
        await publish(topics, "t", b"good\n", b"x" * (1 << 20), b"x\nnever\n")
    await publish(topics, "t", b"next\n")
    assert await read(topics, "t", 10) == b"good\nnext\n"


async def test_publish_of_several_writers_is_merged_and_keeps_each_order(
    topics: TopicService,
) -> None:
    bodies = [Body() for _ in range(3)]
    publishing = [
        asyncio.ensure_future(topics.publish_stream(SPACE, "t", NDJSON, aiter(each)))
        for each in bodies
    ]
    for number in range(100):
        for writer, each in enumerate(bodies):
            each.send(b"%d %02d\n" % (writer, number))
        await asyncio.sleep(0)
    for each in bodies:
        each.end()
    await asyncio.gather(*publishing)
    lines = (await read(topics, "t", 3 * 100 * 5)).split(b"\n")[:-1]
    for writer in range(3):
        own = [int(line.split()[1]) for line in lines if line.startswith(b"%d " % writer)]
        assert own == list(range(100))


@pytest.mark.parametrize("content_type", [NDJSON, "text/plain", "application/octet-stream"])
async def test_publish_of_much_comes_back_unchanged(
    topics: TopicService, content_type: str
) -> None:
    data = b"".join(b"line %d\n" % number for number in range(300_000))
    chunks = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
    await publish(topics, "t", *chunks, content_type=content_type)
    assert await read(topics, "t", len(data)) == data


async def test_publish_goes_on_while_another_writer_stays_open(topics: TopicService) -> None:
    slow = Body()
    publishing = asyncio.ensure_future(topics.publish_stream(SPACE, "t", NDJSON, aiter(slow)))
    slow.send(b"slow ")
    await publish(topics, "t", b"fast\n")
    slow.send(b"end\n")
    slow.end()
    await publishing
    assert await read(topics, "t", 14) == b"fast\nslow end\n"


# -- plain readers


async def test_readers_that_are_there_all_get_everything(topics: TopicService) -> None:
    async with (
        asyncio.timeout(WAIT_SECONDS),
        topics.read_stream(SPACE, "t") as one,
        topics.read_stream(SPACE, "t") as other,
    ):
        for number in range(3):
            await publish(topics, "t", b"%d\n" % number)
            assert await anext(one) == await anext(other) == b"%d\n" % number


async def test_reader_gets_what_was_published_before(topics: TopicService) -> None:
    await publish(topics, "t", b"before\n")
    assert await read(topics, "t", 7) == b"before\n"


async def test_reader_after_a_broken_one_gets_its_tail_again(
    topics: TopicService, clock: Clock
) -> None:
    await publish(topics, "t", b"one\n")
    assert await read(topics, "t", 4) == b"one\n"
    assert await read(topics, "t", 4, confirm=clock) == b"one\n"
    await publish(topics, "t", b"two\n")
    assert await read(topics, "t", 4) == b"two\n"


async def test_reader_beside_another_begins_at_the_cursor(
    topics: TopicService, clock: Clock
) -> None:
    await publish(topics, "t", b"one\n")
    async with asyncio.timeout(WAIT_SECONDS), topics.read_stream(SPACE, "t") as first:
        assert await anext(first) == b"one\n"
        waiting = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        async with topics.read_stream(SPACE, "t") as second:
            await publish(topics, "t", b"two\n")
            assert await anext(second) == await waiting == b"two\n"


async def test_reader_that_stops_slows_nobody(topics: TopicService) -> None:
    data = b"x" * 99 + b"\n"
    async with asyncio.timeout(WAIT_SECONDS), topics.read_stream(SPACE, "t") as stopped:
        await publish(topics, "t", data)
        await anext(stopped)
        async with topics.read_stream(SPACE, "t") as moving:
            for _ in range(5):
                await publish(topics, "t", data * 20_000)
            size = 0
            while size < 100 * 20_000 * 5:
                size += len(await anext(moving))
            await publish(topics, "other", data)
            assert await read(topics, "other", 100) == data
        size = 0
        while size < 100 * 20_000 * 5:
            size += len(await anext(stopped))


async def test_reader_is_not_given_what_is_not_durable(tmp_path: Path, clock: Clock) -> None:
    disk = SimulatedFiles()
    store = disk_store(tmp_path, segment_bytes=1 << 20, files=lambda _: disk)
    topics = TopicService(store, clock=clock)
    await publish(topics, "t", b"good\n")
    disk.failing_syncs = 1
    with pytest.raises(StorageFailed):
        await publish(topics, "t", b"lost\n")
    await publish(topics, "t", b"after\n")
    assert await read(topics, "t", 11) == b"good\nafter\n"
    await topics.close()
    await store.close()


# -- over restarts


@pytest.mark.parametrize("killed", [False, True])
async def test_topics_survive_a_restart(tmp_path: Path, clock: Clock, killed: bool) -> None:
    broker = Broker(tmp_path, clock)
    await publish(broker.topics, "t", b"one\ntwo\n")
    assert await read(broker.topics, "t", 8, confirm=clock) == b"one\ntwo\n"
    await broker.topics.keep()
    await publish(broker.topics, "t", b"three\n")
    await broker.restart(killed=killed)
    assert [each.name for each in await broker.topics.list(SPACE)] == ["t"]
    await publish(broker.topics, "t", b"four\n")
    assert await read(broker.topics, "t", 11) == b"three\nfour\n"
    await broker.close()


async def test_topics_that_nobody_names_are_removed(tmp_path: Path, clock: Clock) -> None:
    store = open_store(tmp_path)
    topics = TopicService(store, clock=clock)
    await publish(topics, "kept", b"a\n")
    await publish(topics, "orphan", b"a\n")
    await store.records.delete(f"topic/{SPACE}/orphan")
    await topics.remove_orphans()
    assert len(await store.topics.names()) == 1
    assert await read(topics, "kept", 2) == b"a\n"
    await topics.close()
    await store.close()


# -- a full Topic


async def test_full_topic_that_nobody_reads_refuses_and_keeps_all(
    tmp_path: Path, clock: Clock
) -> None:
    store = disk_store(tmp_path, segment_bytes=1000)
    topics = TopicService(store, clock=clock, quota_bytes=5000, room_seconds=0.0)
    line = b"x" * 899 + b"\n"
    stored = 0
    with pytest.raises(TopicFull):
        while stored < 100:
            stored += await publish(topics, "t", line)
    assert 3 <= stored <= 5
    assert await read(topics, "t", 900 * stored) == line * stored
    await topics.close()
    await store.close()


async def test_full_topic_goes_on_when_its_reader_does(tmp_path: Path, clock: Clock) -> None:
    store = disk_store(tmp_path, segment_bytes=1000)
    topics = TopicService(store, clock=clock, quota_bytes=5000)
    line = b"x" * 899 + b"\n"

    async def write() -> None:
        for _ in range(50):
            await publish(topics, "t", line)

    writing = asyncio.ensure_future(write())
    async with asyncio.timeout(30), topics.read_stream(SPACE, "t") as stream:
        size = 0
        while size < 50 * 900:
            size += len(await anext(stream))
            clock.now += 2
    await writing
    (info,) = await topics.list(SPACE)
    assert (await store.topics.bounds(info.log)).size <= 6000
    await topics.close()
    await store.close()
