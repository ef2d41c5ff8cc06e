"""Credit is never negative, never lost, and never more than the pool allows."""

from hypothesis import given
from hypothesis import strategies as st

from sth_protocol.window import MAX_WINDOW, MIN_WINDOW, Pool, ReceiveWindow, SendCredit

TOTAL = 100_000
STEPS = st.tuples(
    st.sampled_from(["send", "consume", "announce", "tick"]),
    st.integers(0, 2),
    st.integers(0, 40_000),
)


def announce(window: ReceiveWindow, credit: SendCredit) -> None:
    limit, consumed = window.announce()
    credit.note_consumed(consumed)
    credit.raise_limit(limit)


@given(st.lists(STEPS, max_size=200))
def test_windows_and_credits_agree_whatever_is_sent_and_consumed(
    steps: list[tuple[str, int, int]],
) -> None:
    pool = Pool(TOTAL)
    ends = [(ReceiveWindow(pool), SendCredit()) for _ in range(3)]
    for step, index, amount in steps:
        window, credit = ends[index]
        if step == "send":
            count = min(amount, credit.available)
            window.receive(credit.sent, count)
            credit.sent += count
        elif step == "consume":
            window.consume(min(amount, window.received - window.consumed))
        elif step == "announce":
            announce(window, credit)
        else:
            window.tick()
        assert credit.available >= 0
        assert credit.limit <= window.limit
        assert window.consumed <= window.received <= window.limit
        assert window.limit - window.consumed <= MAX_WINDOW
        assert pool.free + sum(each.size - MIN_WINDOW for each, _ in ends) == TOTAL
        assert pool.free >= 0
    for window, credit in ends:
        window.consume(window.received - window.consumed)
        announce(window, credit)
        assert credit.available >= MIN_WINDOW
        assert credit.consumed == credit.sent
        window.close()
    assert pool.free == TOTAL
