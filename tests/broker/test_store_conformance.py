"""What every engine of the store does: the embedded one, and one of opaque messages in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.batches import lines
from tests.support.memory_store import MemoryPackages, MemoryRecords, MemoryTopics

from sth_broker.store import open_store
from sth_broker.store.interface import Bounds, Packages, Record, Records, Topics
from sth_protocol import batch
from sth_protocol.errors import (
    BadName,
    Conflict,
    NotFound,
    OffsetBeyondEnd,
    OffsetTrimmed,
    SthError,
)

WAIT = 10.0


@dataclass
class Parts:
    records: Records
    topics: Topics
    packages: Packages


@pytest.fixture(params=["embedded", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Parts]:
    if request.param == "memory":
        yield Parts(MemoryRecords(), MemoryTopics(), MemoryPackages(tmp_path))
        return
    embedded = open_store(tmp_path)
    yield Parts(embedded.records, embedded.topics, embedded.packages)
    await embedded.close()


async def append(topics: Topics, log: str, *texts: str, tail: int, time_ms: int = 1) -> int:
    return await topics.append(log, [lines(*texts)], expected_tail=tail, time_ms=time_ms)


async def read_all(topics: Topics, log: str, offset: int = 0, max_bytes: int = 1 << 20) -> str:
    text = b""
    while True:
        chunk = await topics.read(log, offset, max_bytes)
        if not chunk.batches:
            return text.decode()
        for each in chunk.batches:
            skip = offset - each.header.base_offset
            text += bytes(batch.payload_after(each.data, each.header, skip))
            offset = each.header.next_offset
        assert chunk.next_offset == offset


# -- records


async def test_records_put_and_get(store: Parts) -> None:
    assert await store.records.get("hub/a") is None
    revision = await store.records.put("hub/a", {"name": "a", "labels": [1, None, "ü"]})
    assert await store.records.get("hub/a") == Record(
        "hub/a", {"name": "a", "labels": [1, None, "ü"]}, revision
    )


async def test_records_revisions_rise_even_over_a_deletion(store: Parts) -> None:
    first = await store.records.put("a", {})
    second = await store.records.put("b", {})
    assert await store.records.delete("b")
    third = await store.records.put("b", {})
    assert first < second < third


async def test_records_compare_and_set(store: Parts) -> None:
    revision = await store.records.put("a", {"n": 1}, expected=0)
    with pytest.raises(Conflict):
        await store.records.put("a", {"n": 2}, expected=0)
    with pytest.raises(Conflict):
        await store.records.put("a", {"n": 2}, expected=revision + 1)
    with pytest.raises(Conflict):
        await store.records.delete("a", expected=revision + 1)
    following = await store.records.put("a", {"n": 3}, expected=revision)
    record = await store.records.get("a")
    assert record is not None and record.value == {"n": 3}
    assert await store.records.delete("a", expected=following)
    assert not await store.records.delete("a")


async def test_records_one_of_many_at_once_wins(store: Parts) -> None:
    puts = [store.records.put("a", {"n": number}, expected=0) for number in range(20)]
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(each, int) for each in results) == 1
    assert sum(isinstance(each, Conflict) for each in results) == 19


async def test_records_list_by_prefix_in_order(store: Parts) -> None:
    for key in ("topic/b/x", "topic/a/z", "topic/a/y", "topic/a~", "topical"):
        await store.records.put(key, {"key": key})
    found = [record.key for record in await store.records.list("topic/a/")]
    assert found == ["topic/a/y", "topic/a/z"]
    assert len(await store.records.list("")) == 5
    assert await store.records.list("nothing/") == []


@pytest.mark.parametrize("key", ["", "with space", "new\nline", "ümlaut", "x" * 513])
async def test_records_bad_key_is_refused(store: Parts, key: str) -> None:
    with pytest.raises(BadName):
        await store.records.put(key, {})


async def test_records_watch_tells_changes_in_order(store: Parts) -> None:
    await store.records.put("hub/before", {})
    changes = store.records.watch("hub/")
    await store.records.put("hub/a", {"n": 1})
    await store.records.put("other/a", {})
    first = await asyncio.wait_for(anext(changes), WAIT)
    assert (first.key, first.record and first.record.value) == ("hub/a", {"n": 1})
    await store.records.delete("hub/a")
    second = await asyncio.wait_for(anext(changes), WAIT)
    assert (second.key, second.record) == ("hub/a", None)
    assert second.revision > first.revision


# -- topics


async def test_topics_log_that_never_was_is_empty(store: Parts) -> None:
    assert await store.topics.bounds("none") == Bounds(0, 0, 0)
    assert (await store.topics.read("none", 0, 100)).batches == ()
    assert await store.topics.offset_at("none", 5) == 0
    assert await store.topics.trim("none", 5) == Bounds(0, 0, 0)
    await store.topics.delete("none")
    assert await store.topics.names() == []
    with pytest.raises(OffsetBeyondEnd):
        await store.topics.read("none", 1, 100)


async def test_topics_append_and_read(store: Parts) -> None:
    assert await append(store.topics, "log", "a", "b", tail=0, time_ms=100) == 2
    assert await append(store.topics, "log", "c", tail=2, time_ms=200) == 3
    chunk = await store.topics.read("log", 0, 1 << 20)
    assert [each.header.base_offset for each in chunk.batches] == [0, 2]
    assert [each.header.time_ms for each in chunk.batches] == [100, 200]
    assert await read_all(store.topics, "log") == "a\nb\nc\n"
    assert await read_all(store.topics, "log", 1) == "b\nc\n"
    assert await read_all(store.topics, "log", max_bytes=1) == "a\nb\nc\n"
    bounds = await store.topics.bounds("log")
    assert (bounds.start, bounds.end) == (0, 3)
    assert bounds.size >= 2 * batch.HEADER_BYTES


async def test_topics_stored_batch_differs_only_in_its_stamp(store: Parts) -> None:
    data = lines("a", "b", base_sequence=41)
    await store.topics.append("log", [data], expected_tail=0, time_ms=7)
    (found,) = (await store.topics.read("log", 0, 1)).batches
    assert bytes(found.data[:48]) == data[:48]
    assert bytes(found.data[64:]) == data[64:]
    assert batch.verify(bytes(found.data)) == found.header


async def test_topics_appends_are_stored_in_the_order_of_the_calls(store: Parts) -> None:
    futures = [
        store.topics.append("log", [lines(str(number))], expected_tail=number, time_ms=1)
        for number in range(200)
    ]
    assert await asyncio.gather(*futures) == list(range(1, 201))
    assert await read_all(store.topics, "log") == "".join(f"{number}\n" for number in range(200))


async def test_topics_append_at_another_tail_is_a_conflict(store: Parts) -> None:
    await append(store.topics, "log", "a", tail=0)
    for tail in (0, 2):
        with pytest.raises(Conflict):
            await append(store.topics, "log", "b", tail=tail)
    assert await read_all(store.topics, "log") == "a\n"


async def test_topics_what_is_queued_behind_a_refused_append_fails_too(store: Parts) -> None:
    futures = [
        store.topics.append("log", [lines("a")], expected_tail=tail, time_ms=1)
        for tail in (0, 5, 6, 1)
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(each, SthError) for each in results] == [False, True, True, False]
    assert await read_all(store.topics, "log") == "a\na\n"


async def test_topics_read_at_and_beyond_the_end(store: Parts) -> None:
    await append(store.topics, "log", "a", tail=0)
    chunk = await store.topics.read("log", 1, 100)
    assert (chunk.batches, chunk.next_offset, chunk.gap) == ((), 1, None)
    with pytest.raises(OffsetBeyondEnd):
        await store.topics.read("log", 2, 100)


async def test_topics_offset_of_a_time(store: Parts) -> None:
    for number in range(3):
        await append(store.topics, "log", "a", "b", tail=2 * number, time_ms=100 * number)
    found = [await store.topics.offset_at("log", time_ms) for time_ms in (0, 1, 200, 201)]
    assert found == [0, 2, 4, 6]


async def test_topics_trim_never_takes_what_is_still_wanted(store: Parts) -> None:
    for number in range(5):
        await append(store.topics, "log", "a", "b", tail=2 * number)
    bounds = await store.topics.trim("log", 5)
    assert bounds.start <= 5 and bounds.end == 10
    assert await read_all(store.topics, "log", 5) == "b\na\nb\na\nb\n"
    if bounds.start > 0:
        with pytest.raises(OffsetTrimmed):
            await store.topics.read("log", bounds.start - 1, 100)
    assert await append(store.topics, "log", "more", tail=10) == 11


async def test_topics_logs_are_apart_and_can_be_deleted(store: Parts) -> None:
    await append(store.topics, "one", "a", tail=0)
    await append(store.topics, "two", "b", tail=0)
    assert await store.topics.names() == ["one", "two"]
    await store.topics.delete("one")
    assert await store.topics.names() == ["two"]
    assert await store.topics.bounds("one") == Bounds(0, 0, 0)
    assert await append(store.topics, "one", "new", tail=0) == 1
    assert await read_all(store.topics, "one") == "new\n"
    assert await read_all(store.topics, "two") == "b\n"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".hidden", "x" * 241])
async def test_topics_bad_name_is_refused(store: Parts, name: str) -> None:
    with pytest.raises(BadName):
        await store.topics.bounds(name)
    with pytest.raises(BadName):
        await store.topics.append(name, [lines("a")], expected_tail=0, time_ms=0)


# -- packages


async def test_packages_put_open_and_delete(store: Parts) -> None:
    content = b"content" * 1000
    sha256 = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        path = store.packages.temporary()
        path.write_bytes(content)
        await store.packages.put_file(path, sha256)
        assert not path.exists()
    assert await store.packages.size(sha256) == len(content)
    with await store.packages.open(sha256) as file:
        assert file.read() == content
    assert await store.packages.list() == [sha256]
    assert await store.packages.delete(sha256)
    assert not await store.packages.delete(sha256)
    assert await store.packages.list() == []


async def test_packages_missing_one_is_not_found(store: Parts) -> None:
    with pytest.raises(NotFound):
        await store.packages.open("0" * 64)
    with pytest.raises(NotFound):
        await store.packages.size("0" * 64)
