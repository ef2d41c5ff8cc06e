"""Full jitter, and its bounds."""

from sth_agent.backoff import Backoff


def highest(_low: float, high: float) -> float:
    return high


def test_backoff_doubles_up_to_its_bound() -> None:
    backoff = Backoff(highest)
    assert [backoff.next_delay() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_backoff_begins_anew_after_a_success() -> None:
    backoff = Backoff(highest)
    backoff.next_delay()
    backoff.next_delay()
    backoff.succeeded()
    assert backoff.next_delay() == 0.5


def test_backoff_asks_for_the_whole_range_from_zero() -> None:
    asked: list[tuple[float, float]] = []

    def note(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    backoff = Backoff(note)
    assert backoff.next_delay() == 0
    assert asked == [(0.0, 0.5)]


def test_backoff_stays_bounded_after_years_of_failures() -> None:
    backoff = Backoff(highest, failures=10**9)
    assert backoff.next_delay() == 30
