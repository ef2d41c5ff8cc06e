"""One object as lines for a person: a field a line, except what reads better otherwise. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sth_client.fields import Raw

# Field and text; a line without a field continues the one above.
Rows = Sequence[tuple[str, str]]

_FAILURE = "error"


def flat(raw: Mapping[str, Any], prefix: str = "") -> Rows:
    """The fields of an object, those of inner objects with their path."""
    rows: list[tuple[str, str]] = []
    for key, value in raw.items():
        if isinstance(value, Mapping) and value:
            rows.extend(flat(value, f"{prefix}{key}."))
        else:
            rows.append((prefix + key, value if isinstance(value, str) else _compact(value)))
    return rows


def instance_rows(raw: Raw) -> Rows:
    """An Instance; of a failure where it was in the author's own code, a line a frame."""
    failure = raw.get(_FAILURE)
    if not isinstance(failure, Mapping):
        return flat(raw)
    rest = {key: value for key, value in raw.items() if key != _FAILURE}
    told = {key: value for key, value in failure.items() if key != "traceback"}
    fields = ["error.where"]
    where = [(fields.pop() if fields else "", line) for line in frame_lines(raw)]
    return [*flat(rest), *flat(told, "error."), *where]


def frame_lines(raw: Raw) -> list[str]:
    """Where an Instance failed, outermost frame first: `main.py:12 in convert: return int(x)`."""
    found: Any = raw
    for key in (_FAILURE, "traceback", "frames"):
        found = found.get(key) if isinstance(found, Mapping) else None
    frames = found if isinstance(found, list) else []
    return [_frame(each) for each in frames if isinstance(each, Mapping)]


def hub_rows(raw: Raw) -> Rows:
    """A Hub; of its sandbox a line a part."""
    sandbox = raw.get("sandbox")
    if not isinstance(sandbox, Mapping):
        return flat(raw)
    parts = {name: _part(each) for name, each in sandbox.items()}
    return flat({**raw, "sandbox": parts})


def _frame(frame: Mapping[str, Any]) -> str:
    source = f": {frame['source']}" if frame.get("source") else ""
    return f"{frame.get('file')}:{frame.get('line')} in {frame.get('function')}{source}"


def _part(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    told: Iterable[object] = (part.get(key) for key in ("state", "reason", "fix"))
    return "; ".join(str(each) for each in told if each)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
