import pytest
from hypothesis import given
from hypothesis import strategies as st

from sth_protocol import batch
from sth_protocol.errors import BadFrame, Corrupt, SthError

PRODUCER = bytes(range(16))


def lines(*texts: str, base_sequence: int = 7) -> bytes:
    payload = "".join(f"{text}\n" for text in texts).encode()
    return batch.encode(
        payload, producer=PRODUCER, epoch=3, base_sequence=base_sequence, count=len(texts)
    )


def test_batch_round_trip_keeps_every_field() -> None:
    header = batch.verify(lines("a", "b", "c"))
    assert (header.count, header.length, header.flags) == (3, 6, 0)
    assert (header.producer, header.epoch, header.base_sequence) == (PRODUCER, 3, 7)
    assert (header.base_offset, header.time_ms) == (0, 0)
    assert header.next_sequence == 10


def test_batch_layout_is_that_of_the_wire() -> None:
    data = lines("x")
    assert data[0:4] == (0x42485453).to_bytes(4, "little") == b"STHB"
    assert data[4] == 1
    assert data[8:12] == (1).to_bytes(4, "little")
    assert data[12:16] == (2).to_bytes(4, "little")
    assert data[16:32] == PRODUCER
    assert data[32:40] == (7).to_bytes(8, "little")
    assert data[40:44] == (3).to_bytes(4, "little")
    assert data[48:64] == bytes(16)
    assert data[64:] == b"x\n"


def test_batch_stamping_leaves_the_checksum_valid() -> None:
    head, rest = batch.stamped(lines("a", "b"), 1234, 5678)
    header = batch.verify(head + bytes(rest))
    assert (header.base_offset, header.time_ms, header.next_offset) == (1234, 5678, 1236)


@given(position=st.integers(0, 71), bit=st.integers(0, 7))
def test_batch_with_a_flipped_bit_is_refused_or_only_restamped(position: int, bit: int) -> None:
    data = bytearray(lines("ab", "cde"))
    original = bytes(data)
    data[position % len(data)] ^= 1 << bit
    try:
        batch.verify(bytes(data))
    except (BadFrame, Corrupt):
        return
    assert bytes(data[:48]) == original[:48]
    assert bytes(data[64:]) == original[64:]


@given(data=st.binary(max_size=300))
def test_batch_arbitrary_bytes_are_refused_with_a_code(data: bytes) -> None:
    for attempt in (data, b"STHB\x01" + data, b"STHB\x01\x00\x00\x00" + data):
        with pytest.raises(SthError) as caught:
            batch.verify(attempt)
        assert isinstance(caught.value, BadFrame | Corrupt)


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 67])
def test_batch_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(BadFrame):
        batch.verify(lines("a", "b")[:cut])


def test_batch_followed_by_anything_is_refused() -> None:
    with pytest.raises(BadFrame):
        batch.verify(lines("a") + b"x")


@pytest.mark.parametrize(
    ("payload", "count", "flags"),
    [(b"a\nb\n", 1, 0), (b"a\nb\n", 3, 0), (b"a\nb", 1, 0), (b"", 1, 0), (b"ab", 2, 2)],
)
def test_batch_whose_count_does_not_fit_is_refused(payload: bytes, count: int, flags: int) -> None:
    data = batch.encode(
        payload, producer=PRODUCER, epoch=1, base_sequence=0, count=count, flags=flags
    )
    with pytest.raises(BadFrame):
        batch.verify(data)


def test_batch_lengths_must_add_up() -> None:
    good = batch.encode(
        b"abcdef", producer=PRODUCER, epoch=1, base_sequence=0, count=3, lengths=[1, 2, 3]
    )
    assert batch.verify(good).payload_bytes == 6
    bad = batch.encode(
        b"abcdef", producer=PRODUCER, epoch=1, base_sequence=0, count=3, lengths=[1, 2, 4]
    )
    with pytest.raises(BadFrame):
        batch.verify(bad)


def test_batch_of_too_large_a_payload_is_refused() -> None:
    payload = bytes(batch.MAX_PAYLOAD)
    data = batch.encode(payload, producer=PRODUCER, epoch=1, base_sequence=0, count=1, flags=2)
    assert batch.verify(data).payload_bytes == batch.MAX_PAYLOAD
    with pytest.raises(BadFrame):
        batch.encode(payload + b"x", producer=PRODUCER, epoch=1, base_sequence=0, count=1)


@pytest.mark.parametrize("epoch", [-1, 2**32])
def test_batch_with_a_number_out_of_range_is_refused(epoch: int) -> None:
    with pytest.raises(BadFrame):
        batch.encode(b"a\n", producer=PRODUCER, epoch=epoch, base_sequence=0, count=1)


@given(st.lists(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), max_size=5))
def test_batch_split_finds_every_batch(groups: list[list[str]]) -> None:
    batches = [lines(*group) for group in groups]
    found = list(batch.split(b"".join(batches)))
    assert [bytes(data) for _, data in found] == batches
    assert [header.count for header, _ in found] == [len(group) for group in groups]


def test_batch_split_refuses_a_cut_one() -> None:
    with pytest.raises(BadFrame):
        list(batch.split(lines("a") + lines("b")[:-1]))


@given(texts=st.lists(st.text("ab", max_size=3), min_size=1, max_size=6), skip=st.integers(0, 7))
def test_batch_payload_after_skips_whole_records(texts: list[str], skip: int) -> None:
    data = lines(*texts)
    rest = batch.payload_after(data, batch.read_header(data), skip)
    assert bytes(rest).decode() == "".join(f"{text}\n" for text in texts[skip:])
    assert batch.records_in(bytes(rest)) == len(texts[skip:])


def test_batch_payload_after_uses_the_lengths() -> None:
    data = batch.encode(
        b"a\nbcdef", producer=PRODUCER, epoch=1, base_sequence=0, count=3, lengths=[3, 2, 2]
    )
    assert bytes(batch.payload_after(data, batch.verify(data), 1)) == b"cdef"
