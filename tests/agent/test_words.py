"""Times and durations as people read and write them."""

import pytest

from sth_agent import clock
from sth_agent.durations import parse_duration
from sth_protocol.errors import BadRequest

HOUR = 3600.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45.9, "45 s"),
        (60, "1 min"),
        (58.5 * 60, "58 min"),
        (3 * HOUR, "3 h"),
        (24 * HOUR, "1 day"),
        (60 * HOUR, "2 days"),
    ],
)
def test_duration_is_one_unit_rounded_down(seconds: float, text: str) -> None:
    assert clock.duration(seconds) == text


def test_moment_and_day_are_written_in_utc() -> None:
    assert clock.moment(0) == "1 Jan 1970 00:00 UTC"
    assert clock.day(1_000_000_000) == "9 Sep 2001"


@pytest.mark.parametrize(("difference", "agrees"), [(0, True), (-3599, True), (3601, False)])
def test_clocks_agree_within_the_hour_of_backdating(difference: float, agrees: bool) -> None:
    assert clock.agrees(10_000_000 + difference, 10_000_000) is agrees


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), ("1.5h", 5400.0), (" 0s ", 0.0)],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "ten", "1 s x"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_duration(text)
