"""Lengths of time as people write them."""

import re

from sth_protocol.errors import BadRequest

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def parse_duration(text: str) -> float:
    """Seconds of `10s`, `500ms`, `2m`, `1h` or `10`; BadRequest for anything else."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise BadRequest(f"'{text}' is not a length of time", hint="write 10s, 500ms, 2m or 1h")
    return float(found[1]) * _UNITS[found[2] or ""]
