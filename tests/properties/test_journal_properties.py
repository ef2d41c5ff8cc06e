"""A journal on a disk that loses what is not synced: nothing acknowledged is ever lost, nothing is
out of order, and nothing that was not durable is read."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.batches import lines
from tests.support.simulated_files import SimulatedFiles

from sth_protocol import batch
from sth_protocol.errors import StorageFailed
from sth_protocol.journal import Journal


class JournalMachine(RuleBasedStateMachine):
    """`acknowledged`: lines whose sync returned; `pending`: those after them, which may survive a
    crash from their front, and as long as no recovery has given them up."""

    def __init__(self) -> None:
        super().__init__()
        self.files = SimulatedFiles()
        self.acknowledged: list[str] = []
        self.pending: list[str] = []
        self.number = 0
        self.start = 0

    @initialize(segment_bytes=st.sampled_from([1, 150, 400, 1 << 20]))
    def open(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.journal = Journal.open(self.files, segment_bytes=segment_bytes)

    @precondition(lambda self: not self.journal.failed)
    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def append(self, counts: list[int]) -> None:
        fresh = []
        for count in counts:
            fresh.append([f"line {self.number + each}" for each in range(count)])
            self.number += count
        before = self.journal.end
        try:
            self.journal.append([lines(*each) for each in fresh], time_ms=self.number)
        except StorageFailed:
            pass
        if self.journal.end > before:  # It began a new segment, and synced the old one first.
            self._acknowledge_pending()
        self.pending += [line for each in fresh for line in each]

    @precondition(lambda self: not self.journal.failed)
    @rule()
    def sync(self) -> None:
        try:
            self.journal.sync()
        except StorageFailed:
            return
        self._acknowledge_pending()

    @rule(count=st.integers(1, 2))
    def syncs_will_fail(self, count: int) -> None:
        self.files.failing_syncs = count

    @rule(room=st.one_of(st.none(), st.integers(0, 500)))
    def space_changes(self, room: int | None) -> None:
        self.files.room = room

    @precondition(lambda self: self.journal.failed)
    @rule()
    def recover(self) -> None:
        try:
            self.journal.recover()
        except StorageFailed:
            return
        self._take_over_survivors()

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        before = self.start + int(part * len(self.acknowledged))
        try:
            self.journal.trim(before)
        except StorageFailed:
            pass
        gone = self.journal.start - self.start
        assert gone >= 0 and self.journal.start <= before
        del self.acknowledged[:gone]
        self.start = self.journal.start

    @rule()
    def open_again(self) -> None:
        self.files.failing_syncs, self.files.room = 0, None
        self.journal = Journal.open(self.files, segment_bytes=self.segment_bytes)
        self._take_over_survivors()

    @rule(random=st.randoms(use_true_random=False))
    def power_cut(self, random: Random) -> None:
        self.files.power_cut(random.randrange)
        self.open_again()

    @invariant()
    def reads_give_exactly_what_is_durable(self) -> None:
        if hasattr(self, "journal"):
            assert self._read_all() == self.acknowledged

    def _acknowledge_pending(self) -> None:
        self.acknowledged += self.pending
        self.pending.clear()

    def _take_over_survivors(self) -> None:
        found = self._read_all()
        if self.journal.start < self.start:
            # A removal that was not synced is undone by a power cut.
            found = found[self.start - self.journal.start :]
            self.journal.trim(self.start)
            assert self.journal.start == self.start
        known = len(self.acknowledged)
        assert found[:known] == self.acknowledged
        assert found[known:] == self.pending[: len(found) - known]
        self.acknowledged = found
        self.pending.clear()

    def _read_all(self) -> list[str]:
        found: list[str] = []
        offset = self.journal.start
        while offset < self.journal.end:
            chunk = self.journal.read(offset, 300)
            assert chunk.gap is None
            for each in chunk.batches:
                assert each.header.base_offset == offset
                found += bytes(batch.payload_of(each.data, each.header)).decode().splitlines()
                offset = each.header.next_offset
            assert chunk.next_offset == offset
        return found


TestJournalOnATreacherousDisk = JournalMachine.TestCase
TestJournalOnATreacherousDisk.settings = settings(stateful_step_count=30, deadline=None)
