"""Idempotent publishing under retries, reordering, failing disks, restarts and power cuts: every
record that was answered stands in the log once, at the offset of its answer, in its producer's
order."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import lines
from tests.support.memory_store import MemoryRecords
from tests.support.simulated_files import SimulatedFiles
from tests.support.topics import MemoryStore

from sth_broker.store.segments import SegmentTopics
from sth_broker.topic_log import TopicInfo, TopicLog
from sth_protocol import batch
from sth_protocol.errors import SequenceGap, SthError

PRODUCERS = (b"a" * 16, b"b" * 16)
INFO = TopicInfo("default", "t", "application/x-ndjson", 0, "log", 1 << 30)

# (producer, how far from the next batch, how many such batches at once): 0 is the next one, -1 the
# last one again, +1 skips one.
Send = tuple[int, int, int]
Step = Send | str
steps = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-3, 1), st.integers(1, 4))
    | st.sampled_from(["fail", "restart", "power", "snapshot"]),
    max_size=25,
)


class World:
    """A Topic on a simulated disk, its two producers, and what they were answered."""

    def __init__(self, directory: Path, random: Random) -> None:
        self.directory = directory
        self.random = random
        self.disk = SimulatedFiles()
        self.records = MemoryRecords()
        self.sent = [0, 0]
        # For every producer, by batch: the offset it was answered.
        self.answers: list[dict[int, int]] = [{}, {}]

    async def start(self) -> None:
        topics = SegmentTopics(self.directory, segment_bytes=400, files=lambda _: self.disk)
        self.store = MemoryStore(self.records, topics)
        self.engine = topics
        self.log = TopicLog(
            INFO, records=self.records, topics=topics, clock=lambda: 1.0, touched=lambda log: None
        )
        await self.log.load()

    async def run(self, wanted: Sequence[Step]) -> None:
        await self.start()
        for step in wanted:
            match step:
                case "fail":
                    self.disk.failing_syncs = 1
                case "snapshot":
                    await self._quietly(self.log.keep_producers())
                case "restart":
                    await self.engine.close()
                    self.disk.failing_syncs = 0
                    await self.start()
                case "power":
                    await self.engine.close()
                    self.disk.power_cut(self.random.randrange)
                    await self.start()
                case (int(who), int(distance), int(count)):
                    first = max(0, self._next(who) + distance)
                    numbers = range(first, first + count)
                    await asyncio.gather(*(self._send(who, number) for number in numbers))
        self.disk.failing_syncs = 0
        for who in (0, 1):
            for number in range(self._next(who)):
                await self._send(who, number)
        await self._check()
        await self.engine.close()

    def _next(self, who: int) -> int:
        """A client goes on after the last batch that was answered."""
        return max(self.answers[who], default=-1) + 1

    async def _send(self, who: int, number: int) -> None:
        """Batch `number` of a producer: two lines that name it."""
        texts = [f"{who} {number} {each}" for each in range(2)]
        data = lines(*texts, producer=PRODUCERS[who], base_sequence=2 * number)
        try:
            await self.log.ready(len(data))
            submitted = self.log.submit(data, batch.verify(data))
            await self.log.durable(submitted)
        except SequenceGap:
            assert number not in self.answers[who]
            return
        except SthError:
            return
        if submitted.last_offset is not None:
            base = submitted.last_offset - 1
            assert self.answers[who].setdefault(number, base) == base
        else:
            assert number in self.answers[who]

    async def _quietly(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except SthError:
            return

    async def _check(self) -> None:
        text = b""
        offset = 0
        while (chunk := await self.engine.read("log", offset, 1000)).batches:
            assert chunk.gap is None
            text += b"".join(bytes(batch.payload_of(b.data, b.header)) for b in chunk.batches)
            offset = chunk.next_offset
        found = text.decode().splitlines()
        assert len(found) == len(set(found))
        for who in (0, 1):
            for number, base in self.answers[who].items():
                assert found[base : base + 2] == [f"{who} {number} {each}" for each in range(2)]
            own = [int(line.split()[1]) for line in found if line.startswith(f"{who} ")]
            assert own == sorted(own)


@given(wanted=steps, random=st.randoms(use_true_random=False))
def test_publishing_answers_stand_once_and_in_order(wanted: list[Step], random: Random) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(World(Path(directory), random).run(wanted))
