"""Records that are written behind, on a storage that refuses now and then."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.memory_store import MemoryRecords

from sth_broker.record_writer import RecordWriter
from sth_broker.store.interface import Json
from sth_broker.store.records import SqliteRecords
from sth_protocol.errors import StorageFailed


class Records(MemoryRecords):
    """Counts what it is asked to write; refuses while `full`, waits while not `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.open = asyncio.Event()
        self.open.set()
        self.writes: list[str] = []

    async def put(self, key: str, value: Json, *, expected: int | None = None) -> int:
        await self.open.wait()
        self.writes.append(key)
        if self.full:
            raise StorageFailed("the disk is full")
        return await super().put(key, value, expected=expected)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
async def writer(records: Records) -> AsyncIterator[RecordWriter]:
    writer = RecordWriter(records, retry=0.01)
    yield writer
    await writer.close()


async def values(records: Records) -> dict[str, Json]:
    return {each.key: each.value for each in await records.list("")}


async def test_durable_waits_for_no_later_change_than_it_is_told(
    records: Records, writer: RecordWriter
) -> None:
    writer.put("a", {"n": 1})
    changes = writer.changes
    await writer.durable()
    records.open.clear()
    writer.put("a", {"n": 2})
    await asyncio.wait_for(writer.durable(changes), 5)
    assert await values(records) == {"a": {"n": 1}}
    records.open.set()


async def test_durable_returns_when_everything_before_it_is_stored(
    records: Records, writer: RecordWriter
) -> None:
    writer.put("a", {"n": 1})
    writer.put("b", {"n": 2})
    writer.delete("b")
    await writer.durable()
    assert await values(records) == {"a": {"n": 1}}
    await writer.durable()


async def test_only_the_newest_value_of_a_record_is_written(
    records: Records, writer: RecordWriter
) -> None:
    records.open.clear()
    writer.put("a", {"n": 0})
    await asyncio.sleep(0)
    for number in range(1, 100):
        writer.put("a", {"n": number})
    records.open.set()
    await writer.durable()
    assert await values(records) == {"a": {"n": 99}}
    assert len(records.writes) <= 2


async def test_refused_write_is_told_and_made_again(records: Records, writer: RecordWriter) -> None:
    records.full = True
    writer.put("a", {"n": 1})
    with pytest.raises(StorageFailed):
        await writer.durable()
    writer.put("b", {"n": 2})
    writer.put("a", {"n": 3})
    records.full = False
    await writer.durable()
    assert await values(records) == {"a": {"n": 3}, "b": {"n": 2}}


async def test_refused_write_is_made_again_without_being_asked(
    records: Records, writer: RecordWriter
) -> None:
    records.full = True
    writer.put("a", {"n": 1})
    with pytest.raises(StorageFailed):
        await writer.durable()
    records.full = False
    async with asyncio.timeout(10):
        async for change in records.watch(""):
            assert change.key == "a"
            break


@pytest.mark.parametrize(
    ("key", "value"), [("a key", {"n": 1}), ("b", {"n": float("nan")})], ids=["key", "value"]
)
async def test_record_that_cannot_be_written_holds_up_no_other(
    tmp_path: Path, key: str, value: Json
) -> None:
    records = SqliteRecords(tmp_path / "records.sqlite")
    writer = RecordWriter(records, retry=0.01)
    writer.put(key, value)
    writer.put("good", {"n": 1})
    async with asyncio.timeout(10):
        await writer.durable()
        writer.put("later", {"n": 2})
        await writer.close()
    assert [each.key for each in await records.list("")] == ["good", "later"]
    await records.close()


async def test_close_writes_the_rest_or_gives_up(records: Records) -> None:
    writer = RecordWriter(records, retry=0.01)
    writer.put("a", {"n": 1})
    await writer.close()
    assert await values(records) == {"a": {"n": 1}}
    failing = RecordWriter(records, retry=0.01)
    records.full = True
    failing.put("b", {"n": 1})
    async with asyncio.timeout(10):
        await failing.close()
