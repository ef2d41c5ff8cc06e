import json

import pytest
from tests.support.batches import PRODUCER, lines

from sth_broker.topic_dedupe import IDLE_MS, REMEMBERED_BATCHES, Duplicate, Producers
from sth_protocol import batch
from sth_protocol.batch import Header
from sth_protocol.errors import ProducerFenced, SequenceGap

OTHER = bytes(16)


def header(
    base_sequence: int,
    count: int = 1,
    *,
    offset: int = 0,
    epoch: int = 1,
    producer: bytes = PRODUCER,
) -> Header:
    data = lines(*"x" * count, producer=producer, epoch=epoch, base_sequence=base_sequence)
    head, rest = batch.stamped(data, offset, 0)
    return batch.verify(head + bytes(rest))


def of(*stored: Header, now_ms: int = 0) -> Producers:
    producers = Producers()
    for each in stored:
        producers.stored(each, now_ms=now_ms)
    return producers


def test_producers_the_next_batch_is_new() -> None:
    producers = of(header(0, 2, offset=10), header(2, 3, offset=20))
    assert producers.next_sequence(PRODUCER, 1) == 5
    assert producers.admit(header(5), now_ms=0) is None


def test_producers_a_duplicate_answers_its_offset() -> None:
    producers = of(header(0, 2, offset=10), header(2, 3, offset=20))
    assert producers.admit(header(0, 2), now_ms=0) == Duplicate(10)
    assert producers.admit(header(2, 3), now_ms=0) == Duplicate(20)


@pytest.mark.parametrize(("base", "count"), [(0, 1), (1, 1), (0, 5), (4, 2), (6, 1), (1, 3)])
def test_producers_gaps_and_overlaps_are_refused(base: int, count: int) -> None:
    producers = of(header(0, 2, offset=10), header(2, 3, offset=20))
    with pytest.raises(SequenceGap):
        producers.admit(header(base, count), now_ms=0)


def test_producers_remember_the_last_batches() -> None:
    producers = of(*(header(number, offset=100 + number) for number in range(100)))
    first = 100 - REMEMBERED_BATCHES
    assert producers.admit(header(first), now_ms=0) == Duplicate(100 + first)
    assert producers.admit(header(first - 1), now_ms=0) == Duplicate(None)
    with pytest.raises(SequenceGap):
        producers.admit(header(first - 1, 2), now_ms=0)


def test_producers_an_older_epoch_is_fenced_off() -> None:
    producers = of(header(0), header(0, epoch=2))
    with pytest.raises(ProducerFenced):
        producers.admit(header(1, epoch=1), now_ms=0)
    with pytest.raises(ProducerFenced):
        producers.next_sequence(PRODUCER, 1)
    assert producers.next_sequence(PRODUCER, 3) == 0
    assert producers.admit(header(0, epoch=3), now_ms=0) is None


def test_producers_an_unknown_one_may_begin_anywhere() -> None:
    assert Producers().admit(header(41), now_ms=0) is None
    assert Producers().next_sequence(OTHER, 1) == 0


def test_producers_what_came_before_an_unknown_beginning_is_not_called_a_duplicate() -> None:
    producers = of(header(5, 2, offset=10))
    with pytest.raises(SequenceGap):
        producers.admit(header(3, 2), now_ms=0)
    assert producers.admit(header(5, 2), now_ms=0) == Duplicate(10)


def test_producers_are_apart() -> None:
    producers = of(header(0), header(0, producer=OTHER))
    assert producers.admit(header(1), now_ms=0) is None
    assert producers.admit(header(0, producer=OTHER), now_ms=0) == Duplicate(0)


def test_producers_expire_after_seven_idle_days() -> None:
    producers = of(header(0), now_ms=1000)
    producers.expire(now_ms=1000 + IDLE_MS)
    assert producers.admit(header(0), now_ms=1000 + IDLE_MS) == Duplicate(0)
    assert producers.admit(header(0), now_ms=1001 + IDLE_MS) is None
    producers.expire(now_ms=1001 + IDLE_MS)
    assert len(producers) == 0


def test_producers_of_requests_are_not_remembered() -> None:
    producers = of(header(0, epoch=0))
    assert len(producers) == 0
    assert producers.admit(header(7, epoch=0), now_ms=0) is None


def test_producers_survive_as_json() -> None:
    producers = of(
        *(header(2 * number, 2, offset=3 * number) for number in range(80)),
        header(0, producer=OTHER, epoch=9),
        now_ms=77,
    )
    again = Producers.from_value(json.loads(json.dumps(producers.to_value())))
    assert again.to_value() == producers.to_value()
    assert again.admit(header(158, 2), now_ms=77) == Duplicate(237)
    assert again.next_sequence(OTHER, 9) == 1
