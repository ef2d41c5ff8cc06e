"""What only the embedded store has: a directory, a lock, threads, and a disk that may refuse."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.support.batches import lines
from tests.support.simulated_files import SimulatedFiles

from sth_broker.store import open_store
from sth_broker.store.segments import SegmentTopics
from sth_protocol import batch
from sth_protocol.errors import Conflict, StorageFailed


async def texts(topics: SegmentTopics, log: str = "log") -> list[str]:
    found: list[str] = []
    offset = (await topics.bounds(log)).start
    while (chunk := await topics.read(log, offset, 1000)).batches:
        for each in chunk.batches:
            found += bytes(batch.payload_of(each.data, each.header)).decode().split()
        offset = chunk.next_offset
    return found


class Disk:
    """Simulated directories that outlive the engine."""

    def __init__(self) -> None:
        self.directories: dict[str, SimulatedFiles] = {}

    def files(self, directory: Path) -> SimulatedFiles:
        return self.directories.setdefault(directory.name, SimulatedFiles())


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[Disk], SegmentTopics]]:
    opened: list[SegmentTopics] = []

    def start(disk: Disk) -> SegmentTopics:
        opened.append(SegmentTopics(tmp_path / "topics", segment_bytes=300, files=disk.files))
        return opened[-1]

    yield start
    for topics in opened:
        await topics.close()


async def test_store_opened_again_has_everything(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    revision = await store.records.put("a", {"n": 1})
    await store.topics.append("log", [lines("a", "b")], expected_tail=0, time_ms=5)
    left = store.packages.temporary()
    left.write_bytes(b"unfinished")
    await store.close()

    again = open_store(tmp_path)
    record = await again.records.get("a")
    assert record is not None and record.revision == revision
    assert await again.records.put("b", {}) > revision
    assert (await again.topics.bounds("log")).end == 2
    assert await again.topics.append("log", [lines("c")], expected_tail=2, time_ms=5) == 3
    assert not left.exists()
    await again.close()


async def test_store_is_held_by_one_process(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(Conflict):
        open_store(tmp_path)
    await store.close()
    again = open_store(tmp_path)
    await again.close()


async def test_store_closed_refuses(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await store.close()
    with pytest.raises(StorageFailed):
        await store.records.get("a")
    with pytest.raises(StorageFailed):
        store.topics.append("log", [lines("a")], expected_tail=0, time_ms=0)
    with pytest.raises(StorageFailed):
        await store.topics.read("log", 0, 1)


async def test_store_close_finishes_what_waits(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    append = store.topics.append("log", [lines("a")], expected_tail=0, time_ms=0)
    put = asyncio.ensure_future(store.records.put("a", {}))
    await asyncio.sleep(0)
    await store.close()
    assert await append == 1
    assert await put == 1


async def test_store_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageFailed, match="file"):
        open_store(tmp_path / "file")


async def test_topics_failed_sync_fails_its_group_and_only_its_log(
    start: Callable[[Disk], SegmentTopics],
) -> None:
    disk = Disk()
    topics = start(disk)
    await topics.append("log", [lines("a")], expected_tail=0, time_ms=0)
    await topics.append("other", [lines("x")], expected_tail=0, time_ms=0)
    disk.directories["log"].failing_syncs = 1
    futures = [
        topics.append("log", [lines("lost1")], expected_tail=1, time_ms=0),
        topics.append("log", [lines("lost2")], expected_tail=2, time_ms=0),
        topics.append("other", [lines("y")], expected_tail=1, time_ms=0),
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results[0], StorageFailed)
    assert isinstance(results[1], StorageFailed | Conflict)
    assert results[2] == 2
    assert await topics.append("log", [lines("b")], expected_tail=1, time_ms=0) == 2
    assert await texts(topics) == ["a", "b"]


async def test_topics_power_cut_loses_nothing_acknowledged(
    start: Callable[[Disk], SegmentTopics],
) -> None:
    disk = Disk()
    topics = start(disk)
    for number in range(20):
        await topics.append("log", [lines(f"l{number}")], expected_tail=number, time_ms=0)
    await topics.close()
    disk.directories["log"].power_cut(lambda _: 0)
    again = start(disk)
    assert await texts(again) == [f"l{number}" for number in range(20)]


async def test_topics_full_disk_refuses_then_goes_on(
    start: Callable[[Disk], SegmentTopics],
) -> None:
    disk = Disk()
    topics = start(disk)
    await topics.append("log", [lines("a")], expected_tail=0, time_ms=0)
    disk.directories["log"].room = 10
    for _ in range(3):
        with pytest.raises(StorageFailed):
            await topics.append("log", [lines("b")], expected_tail=1, time_ms=0)
    assert await texts(topics) == ["a"]
    disk.directories["log"].room = None
    assert await topics.append("log", [lines("c")], expected_tail=1, time_ms=0) == 2
    assert await texts(topics) == ["a", "c"]


async def test_topics_trimmed_while_read_is_told(
    start: Callable[[Disk], SegmentTopics],
) -> None:
    disk = Disk()
    topics = start(disk)
    for number in range(20):
        await topics.append("log", [lines("x" * 100)], expected_tail=number, time_ms=0)
    bounds = await topics.trim("log", 20, down_to=700)
    assert 0 < bounds.start < 20
    assert 0 < bounds.size <= 700
    assert len(await texts(topics)) == 20 - bounds.start


async def test_topics_many_logs_share_descriptors(tmp_path: Path) -> None:
    topics = SegmentTopics(tmp_path / "topics")
    for tail in range(2):
        for number in range(140):
            log = f"log{number}"
            assert await topics.append(log, [lines("a")], expected_tail=tail, time_ms=0) == tail + 1
    links = Path("/proc/self/fd").iterdir()
    held = [link for link in links if link.resolve().is_relative_to(tmp_path.resolve())]
    assert len(held) <= 128
    await topics.close()
