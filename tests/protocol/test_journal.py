import errno
from pathlib import Path

import pytest
from tests.support.batches import lines
from tests.support.simulated_files import SimulatedFiles

from sth_protocol import batch
from sth_protocol.batch import Gap
from sth_protocol.errors import BadFrame, OffsetBeyondEnd, OffsetTrimmed, StorageFailed
from sth_protocol.files import DirectoryFiles
from sth_protocol.group_commit import GroupCommit
from sth_protocol.journal import Journal
from sth_protocol.journal_read import offset_at


def texts(journal: Journal, offset: int = 0, max_bytes: int = 1 << 20) -> list[str]:
    """Every line from `offset` to the end; gaps as `gap start-end`."""
    found: list[str] = []
    while offset < journal.end:
        chunk = journal.read(offset, max_bytes)
        for each in chunk.batches:
            skip = offset - each.header.base_offset
            rest = bytes(batch.payload_after(each.data, each.header, skip))
            found += rest.decode().splitlines()
            offset = each.header.next_offset
        if chunk.gap:
            found.append(f"gap {chunk.gap.start}-{chunk.gap.end}")
        assert chunk.next_offset >= offset
        offset = chunk.next_offset
    return found


def filled(files: SimulatedFiles, count: int = 6, *, segment_bytes: int = 1 << 20) -> Journal:
    """A journal of `count` synced batches of two lines."""
    journal = Journal.open(files, segment_bytes=segment_bytes)
    for number in range(count):
        journal.append([lines(f"a{number}", f"b{number}")], time_ms=1000 + number)
        journal.sync()
    return journal


def expected(count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count) for letter in "ab"]


def test_journal_gives_back_what_was_appended_with_offsets_and_time() -> None:
    journal = filled(SimulatedFiles())
    assert (journal.start, journal.end) == (0, 12)
    chunk = journal.read(0, 1 << 20)
    assert [each.header.base_offset for each in chunk.batches] == [0, 2, 4, 6, 8, 10]
    assert [each.header.time_ms for each in chunk.batches] == list(range(1000, 1006))
    assert texts(journal) == expected(6)


def test_journal_reads_from_an_offset_inside_a_batch() -> None:
    journal = filled(SimulatedFiles())
    assert journal.read(3, 1).batches[0].header.base_offset == 2
    assert texts(journal, 3) == expected(6)[3:]


def test_journal_reads_at_least_one_batch_and_no_more_than_asked() -> None:
    journal = filled(SimulatedFiles())
    size = journal.read(0, 1).batches[0].header.size
    assert [len(journal.read(0, size * n).batches) for n in (0, 1, 2, 3)] == [1, 1, 2, 3]
    assert texts(journal, max_bytes=1) == expected(6)


def test_journal_never_reads_what_is_not_synced() -> None:
    journal = filled(SimulatedFiles())
    journal.append([lines("unsynced")], time_ms=2000)
    assert (journal.end, journal.written_end) == (12, 13)
    assert journal.read(12, 1 << 20).batches == ()
    with pytest.raises(OffsetBeyondEnd):
        journal.read(13, 1)
    journal.sync()
    assert texts(journal, 12) == ["unsynced"]


def test_journal_refuses_what_is_no_batch_and_goes_on() -> None:
    journal = filled(SimulatedFiles())
    with pytest.raises(BadFrame):
        journal.append([lines("a"), b"nonsense"], time_ms=0)
    journal.append([lines("good")], time_ms=0)
    journal.sync()
    assert texts(journal, 12) == ["good"]


def test_journal_time_never_goes_back() -> None:
    journal = filled(SimulatedFiles(), 2)
    journal.append([lines("late")], time_ms=5)
    journal.sync()
    assert journal.read(4, 1).batches[0].header.time_ms == 1001


@pytest.mark.parametrize("segment_bytes", [1, 200, 1 << 20])
def test_journal_finds_the_offset_of_a_time(segment_bytes: int) -> None:
    files = SimulatedFiles()
    journal = filled(files, segment_bytes=segment_bytes)
    found = [offset_at(files, journal.extents(), time) for time in (0, 1000, 1003, 1005, 1006)]
    assert found == [0, 0, 6, 10, 12]


@pytest.mark.parametrize("segment_bytes", [1, 200, 1 << 20])
def test_journal_opened_again_has_everything_and_goes_on(segment_bytes: int) -> None:
    files = SimulatedFiles()
    filled(files, segment_bytes=segment_bytes).close()
    journal = Journal.open(files, segment_bytes=segment_bytes)
    assert texts(journal, 5) == expected(6)[5:]
    journal.append([lines("more")], time_ms=3000)
    journal.sync()
    assert texts(journal) == [*expected(6), "more"]
    assert texts(journal, 12) == ["more"]


def test_journal_appended_to_before_its_past_is_first_read() -> None:
    files = SimulatedFiles()
    filled(files).close()
    journal = Journal.open(files)
    for number in range(6, 12):
        journal.append([lines(f"a{number}", f"b{number}")], time_ms=2000)
        journal.sync()
    assert texts(journal, 17) == expected(12)[17:]
    assert texts(journal, 3) == expected(12)[3:]
    assert texts(journal, 17) == expected(12)[17:]


def test_journal_opened_without_being_closed_keeps_what_was_written() -> None:
    files = SimulatedFiles()
    journal = filled(files)
    journal.append([lines("written", "not synced")], time_ms=2000)
    again = Journal.open(files)
    assert texts(again) == [*expected(6), "written", "not synced"]
    files.power_cut(lambda _: 0)
    assert texts(Journal.open(files)) == [*expected(6), "written", "not synced"]


def test_journal_torn_at_any_byte_keeps_the_whole_batches_before() -> None:
    whole = SimulatedFiles()
    filled(whole, 2)
    (name,) = whole.names()
    for length in range(whole.size(name) + 1):
        files = SimulatedFiles()
        filled(files, 2)
        files.cut(name, length)
        journal = Journal.open(files)
        found = texts(journal)
        assert found == expected(2)[: len(found)]
        assert len(found) % 2 == 0
        journal.append([lines("next")], time_ms=9000)
        journal.sync()
        assert texts(Journal.open(files)) == [*found, "next"]


def test_journal_flipped_bit_is_an_explicit_gap_and_never_wrong_bytes() -> None:
    whole = SimulatedFiles()
    filled(whole, 3)
    (name,) = whole.names()
    for position in range(whole.size(name)):
        files = SimulatedFiles()
        filled(files, 3)
        files.content(name)[position] ^= 0x10
        found = texts(Journal.open(files))
        gaps = [f"gap {start}-{start + 2}" for start in (0, 2, 4)]
        allowed = [
            [*expected(1)[:0], gaps[0], *expected(3)[2:]],
            [*expected(1), gaps[1], *expected(3)[4:]],
            [*expected(2), gaps[2]],
            expected(3),
        ]
        assert found in allowed


def test_journal_damage_is_reported_from_the_offset_asked_for() -> None:
    files = SimulatedFiles()
    journal = filled(files)
    (name,) = files.names()
    position = bytes(files.content(name)).index(b"a2\nb2")
    files.content(name)[position] ^= 1
    assert journal.read(5, 1 << 20).gap == Gap(5, 6)
    assert journal.read(5, 1 << 20).next_offset == 6
    chunk = journal.read(2, 1 << 20)
    assert ([each.header.base_offset for each in chunk.batches], chunk.gap) == ([2], Gap(4, 6))


def test_journal_missing_segment_is_a_gap() -> None:
    files = SimulatedFiles()
    filled(files, segment_bytes=1).close()
    files.remove(files.names()[2])
    assert texts(Journal.open(files)) == [*expected(2), "gap 4-6", *expected(6)[6:]]


def test_journal_trims_the_oldest_whole_segments() -> None:
    files = SimulatedFiles()
    journal = filled(files, segment_bytes=1)
    assert journal.trim(5) == 4
    with pytest.raises(OffsetTrimmed):
        journal.read(3, 1)
    assert texts(journal, 4) == expected(6)[4:]
    assert journal.trim(11) == 10
    again = Journal.open(files)
    assert (again.start, again.end) == (10, 12)


def test_journal_trimmed_of_everything_keeps_its_end() -> None:
    files = SimulatedFiles()
    journal = filled(files)
    assert journal.trim(12) == 12
    assert journal.trim(12) == 12
    files.power_cut(lambda _: 0)
    again = Journal.open(files)
    assert (again.start, again.end) == (12, 12)
    again.append([lines("more")], time_ms=0)
    again.sync()
    assert texts(again, 12) == ["more"]


def test_journal_trims_no_further_than_asked() -> None:
    journal = filled(SimulatedFiles(), segment_bytes=1)
    size, segment = journal.size, journal.size // 6
    journal.trim(12, down_to=size // 2)
    assert size // 2 - segment < journal.size <= size // 2
    assert (journal.start, journal.end) == (6, 12)


def test_journal_failed_sync_closes_it_until_recovered() -> None:
    files = SimulatedFiles()
    journal = filled(files, 2)
    journal.append([lines("lost")], time_ms=2000)
    files.failing_syncs = 1
    with pytest.raises(StorageFailed):
        journal.sync()
    with pytest.raises(StorageFailed):
        journal.append([lines("refused")], time_ms=2000)
    assert texts(journal) == expected(2)
    journal.recover()
    journal.append([lines("after")], time_ms=2000)
    journal.sync()
    files.power_cut(lambda _: 0)
    assert texts(Journal.open(files)) == [*expected(2), "after"]


def test_journal_recovery_that_fails_can_be_tried_again() -> None:
    files = SimulatedFiles()
    journal = filled(files, 2)
    journal.append([lines("lost")], time_ms=2000)
    files.failing_syncs = 2
    with pytest.raises(StorageFailed):
        journal.sync()
    with pytest.raises(StorageFailed):
        journal.recover()
    journal.recover()
    journal.append([lines("after")], time_ms=2000)
    journal.sync()
    assert texts(Journal.open(files)) == [*expected(2), "after"]


def test_journal_full_disk_loses_nothing_that_was_acknowledged() -> None:
    files = SimulatedFiles()
    journal = filled(files, 2)
    files.room = 40
    with pytest.raises(StorageFailed) as caught:
        journal.append([lines("too much")], time_ms=2000)
    assert "free space" in caught.value.hint
    assert texts(journal) == expected(2)
    files.room = None
    journal.recover()
    journal.append([lines("after")], time_ms=2000)
    journal.sync()
    assert texts(Journal.open(files)) == [*expected(2), "after"]


def test_journal_without_room_for_a_mark_keeps_the_batch_before_it() -> None:
    files = SimulatedFiles()
    journal = filled(files, 2)
    files.room = len(lines("last")) + 10
    journal.append([lines("last")], time_ms=2000)
    assert journal.sync() == 5
    files.room = None
    journal.append([lines("after")], time_ms=2000)
    journal.sync()
    assert texts(Journal.open(files)) == [*expected(2), "last", "after"]


def test_journal_opens_for_reading_when_its_tail_cannot_be_written_anew() -> None:
    files = SimulatedFiles()
    filled(files, 2).append([lines("tail")], time_ms=2000)
    files.room = 0
    journal = Journal.open(files)
    assert (texts(journal), journal.failed) == (expected(2), True)
    files.room = None
    journal.recover()
    assert texts(journal) == [*expected(2), "tail"]


def test_journal_on_a_real_directory(tmp_path: Path) -> None:
    journal = Journal.open(DirectoryFiles(tmp_path), segment_bytes=4096)
    many = [lines(f"{number}" * 30, base_sequence=number) for number in range(1500)]
    journal.append(many, time_ms=1)
    journal.sync()
    journal.append(many[:10], time_ms=1)
    journal.sync()
    journal.close()
    again = Journal.open(DirectoryFiles(tmp_path))
    assert len(texts(again, max_bytes=3000)) == 1510
    assert len(list(tmp_path.iterdir())) == 2
    again.close()


def test_journal_names_the_reason_of_a_disk_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed) as caught:
        Journal.open(DirectoryFiles(tmp_path / "missing"))
    assert "No such file" in caught.value.message
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


def test_group_commit_takes_all_that_waits_up_to_its_bound() -> None:
    groups: GroupCommit[str] = GroupCommit(max_bytes=10)
    for member, size in (("a", 4), ("b", 6), ("c", 1), ("large", 50), ("d", 1)):
        groups.add(member, size)
    taken = [groups.take_group() for _ in range(5)]
    assert taken == [["a", "b"], ["c"], ["large"], ["d"], []]
    assert len(groups) == 0
