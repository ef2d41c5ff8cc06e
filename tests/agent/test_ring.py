"""The ring of stdout, stderr and log."""

from hypothesis import given
from hypothesis import strategies as st

from sth_agent.ring import Ring


def test_ring_gives_what_was_appended() -> None:
    ring = Ring(100)
    ring.append(b"hello ")
    ring.append(memoryview(b"world"))
    assert ring.read(0, 100) == (0, b"hello world")
    assert ring.read(6, 3) == (6, b"wor")
    assert ring.read(11, 5) == (11, b"")


def test_ring_drops_the_oldest_and_counts_it() -> None:
    ring = Ring(10)
    ring.append(b"0123456789abc")
    assert (ring.start, ring.end, ring.dropped) == (3, 13, 3)
    assert ring.read(0, 100) == (3, b"3456789abc")


def test_ring_of_lines_drops_whole_lines() -> None:
    ring = Ring(12, whole_lines=True)
    for line in (b"one\n", b"two\n", b"three\n"):
        ring.append(line)
    assert ring.read(0, 100) == (4, b"two\nthree\n")
    assert ring.dropped == 4


def test_ring_of_lines_drops_a_line_that_is_larger_than_itself() -> None:
    ring = Ring(4, whole_lines=True)
    ring.append(b"far too long\n")
    assert ring.read(0, 100) == (13, b"")


def test_ring_forgets_only_what_it_holds() -> None:
    ring = Ring(100)
    ring.append(b"0123456789")
    ring.forget(4)
    ring.forget(2)
    assert ring.read(0, 100) == (4, b"456789")
    ring.forget(1000)
    assert (ring.start, ring.end, ring.dropped) == (10, 10, 0)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.integers(min_value=0, max_value=300),
        ),
        max_size=40,
    ),
    st.integers(min_value=1, max_value=64),
)
def test_ring_holds_the_end_of_its_stream(actions: list[bytes | int], capacity: int) -> None:
    ring = Ring(capacity)
    stream = b""
    forgotten = 0
    for action in actions:
        if isinstance(action, bytes):
            stream += action
            ring.append(action)
        else:
            forgotten = max(forgotten, min(action, len(stream)))
            ring.forget(action)
        assert ring.end == len(stream)
        assert ring.start == max(forgotten, ring.start)
        assert ring.end - ring.start <= capacity
        assert ring.read(0, 1000) == (ring.start, stream[ring.start :])
