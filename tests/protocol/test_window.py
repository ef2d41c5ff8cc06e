import pytest

from sth_protocol.errors import ChannelViolation, FlowControlViolated, Internal
from sth_protocol.window import (
    MAX_WINDOW,
    MIN_WINDOW,
    POOL,
    REPORT,
    REPORT_FRAMES,
    Pool,
    ReceiveWindow,
    SendCredit,
)


def transfer(window: ReceiveWindow, count: int) -> bool:
    """Receive and consume all that the window allows of `count`; whether a CREDIT was due."""
    due = False
    while count:
        piece = min(count, window.limit - window.received)
        window.receive(window.received, piece)
        if window.consume(piece):
            due = True
            window.announce()
        count -= piece
    return due


def test_window_begins_with_16_kib_and_takes_no_more() -> None:
    window = ReceiveWindow(Pool())
    window.receive(0, MIN_WINDOW)
    with pytest.raises(FlowControlViolated):
        window.receive(MIN_WINDOW, 1)


@pytest.mark.parametrize("offset", [0, 99, 101, 2**60])
def test_window_refuses_bytes_from_another_place(offset: int) -> None:
    window = ReceiveWindow(Pool())
    window.receive(0, 100)
    with pytest.raises(ChannelViolation, match="100 is the next"):
        window.receive(offset, 1)


def test_window_grants_when_half_of_it_is_consumed() -> None:
    window = ReceiveWindow(Pool())
    window.receive(0, MIN_WINDOW)
    assert not window.consume(MIN_WINDOW // 2 - 1)
    assert window.consume(1)
    assert window.announce() == (MIN_WINDOW + MIN_WINDOW // 2, MIN_WINDOW // 2)
    assert not window.consume(1)


def test_window_that_is_large_grants_every_128_kib() -> None:
    window = ReceiveWindow(Pool())
    for _ in range(400):
        transfer(window, 16 * 1024)
    assert window.size == MAX_WINDOW
    window.announce()
    window.receive(window.received, 256 * 1024)
    assert not window.consume(REPORT - 1)
    assert window.consume(1)


def test_window_refuses_to_consume_what_did_not_come() -> None:
    window = ReceiveWindow(Pool())
    window.receive(0, 10)
    for count in (11, -1):
        with pytest.raises(Internal):
            window.consume(count)


def test_window_doubles_up_to_1_mib_for_a_reader_that_keeps_up() -> None:
    pool = Pool()
    window = ReceiveWindow(pool)
    sizes = {window.size}
    for _ in range(400):
        transfer(window, 16 * 1024)
        sizes.add(window.size)
    assert sorted(sizes) == [MIN_WINDOW << step for step in range(7)]
    assert window.size == MAX_WINDOW
    assert pool.free == POOL - (MAX_WINDOW - MIN_WINDOW)


def test_window_of_a_trickle_does_not_grow() -> None:
    window = ReceiveWindow(Pool())
    for _ in range(100):
        transfer(window, MIN_WINDOW - 1)
        window.tick()
    assert window.size == MIN_WINDOW


def test_window_stays_as_it_is_when_the_pool_is_empty() -> None:
    pool = Pool(MIN_WINDOW)
    first, second = ReceiveWindow(pool), ReceiveWindow(pool)
    for window in (first, second):
        for _ in range(100):
            assert transfer(window, MIN_WINDOW)
    assert (first.size, second.size) == (2 * MIN_WINDOW, MIN_WINDOW)
    assert pool.free == 0


def test_window_gives_its_growth_back_once() -> None:
    pool = Pool()
    window = ReceiveWindow(pool)
    transfer(window, MAX_WINDOW)
    assert pool.free < POOL
    window.close()
    window.close()
    assert pool.free == POOL


def test_window_reports_small_consumption_at_the_tick() -> None:
    window = ReceiveWindow(Pool())
    assert not window.was_announced
    window.receive(0, 10)
    assert not window.consume(10)
    assert window.tick()
    assert window.announce() == (MIN_WINDOW + 10, 10)
    assert window.was_announced
    assert not window.tick()


def test_credit_never_falls_and_says_what_is_news() -> None:
    credit = SendCredit()
    assert credit.raise_limit(MIN_WINDOW + 5)
    assert not credit.raise_limit(MIN_WINDOW + 5)
    assert not credit.raise_limit(0)
    assert credit.available == MIN_WINDOW + 5
    credit.sent = 9
    assert credit.note_consumed(9)
    assert not credit.note_consumed(9)
    assert not credit.note_consumed(3)
    assert credit.consumed == 9


def test_credit_refuses_what_no_receiver_can_mean() -> None:
    credit = SendCredit()
    credit.sent = 9
    with pytest.raises(FlowControlViolated):
        credit.note_consumed(10)
    with pytest.raises(FlowControlViolated):
        credit.raise_limit(MAX_WINDOW + 1)
    credit.note_consumed(1)
    assert credit.raise_limit(MAX_WINDOW + 1)


def test_window_reports_small_frames_by_their_number() -> None:
    window = ReceiveWindow(Pool())
    for number in range(REPORT_FRAMES - 1):
        window.receive(number, 1)
        assert not window.consume(1)
    window.receive(REPORT_FRAMES - 1, 1)
    assert window.consume(1)
    assert window.announce() == (MIN_WINDOW + REPORT_FRAMES, REPORT_FRAMES)
    window.receive(REPORT_FRAMES, 1)
    assert not window.consume(1)
