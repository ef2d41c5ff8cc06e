"""Times as people read them, and how far two clocks may differ. Pure."""

import time

# A broker's certificates are backdated by an hour: a clock that is further behind cannot use them.
TOLERANCE = 3600.0


def agrees(own: float, other: float) -> bool:
    """Whether two clocks (seconds since 1970) are near enough for certificates to be valid."""
    return abs(own - other) < TOLERANCE


def moment(seconds: float) -> str:
    """`22 Nov 2026 14:02 UTC`"""
    return time.strftime("%d %b %Y %H:%M UTC", time.gmtime(seconds)).lstrip("0")


def day(seconds: float) -> str:
    """`23 Dec 2026`"""
    return time.strftime("%d %b %Y", time.gmtime(seconds)).lstrip("0")


def duration(seconds: float) -> str:
    """`45 s`, `58 min`, `3 h`, `2 days`: one unit, rounded down."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {'day' if unit == 'days' and count == 1 else unit}"
    return f"{int(seconds)} s"
