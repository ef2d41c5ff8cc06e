"""What people type and read: lengths of time, JSON arguments, settings, ages. Pure."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from sth_protocol.errors import BadRequest

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def parse_duration(text: str) -> float:
    """Seconds of "90", "10s", "5m", "2h" or "7d"."""
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise BadRequest(f"'{text}' is not a length of time", hint="write 10s, 5m, 2h or 7d")
    return float(matched[1]) * _UNITS[matched[2] or "s"]


def parse_arguments(text: str) -> list[object]:
    """The arguments of a program: a JSON array."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"--args is not JSON: {error}", hint="""write '["text", 1.5]'""") from None
    if not isinstance(value, list):
        raise BadRequest("--args is not a JSON array", hint="""write '["text", 1.5]'""")
    return value


def apply_settings(config: dict[str, object], settings: Iterable[str]) -> dict[str, object]:
    """The config with `key=value` settings applied. A dot in a key goes one object deeper; a value
    that is JSON is taken as such, any other as text."""
    changed: dict[str, object] = json.loads(json.dumps(config))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise BadRequest(f"'{setting}' is not a setting", hint="write --set key=value")
        *path, last = key.split(".")
        target = changed
        for name in path:
            inner = target.setdefault(name, {})
            if not isinstance(inner, dict):
                raise BadRequest(f"--set {key}: {name} is not an object")
            target = inner
        target[last] = _json_or_text(text)
    return changed


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def age(moment: str, now: float) -> str:
    """How long ago an RFC 3339 time was: 42s, 5m, 3h, 2d; empty for none. `now`: since 1970."""
    then = _seconds(moment)
    if then is None:
        return ""
    seconds = max(0, int(now - then))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def is_past(moment: str, now: float) -> bool:
    """Whether an RFC 3339 time has come; never if there is none. `now`: since 1970."""
    then = _seconds(moment)
    return then is not None and then <= now


def _seconds(moment: str) -> float | None:
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()


def log_line(line: bytes) -> str:
    """A line of an Instance's log for reading; one that is not of that form stays as it is."""
    try:
        entry = json.loads(line)
        moment = datetime.fromtimestamp(entry["ts"] / 1000).astimezone()
        level, message = str(entry["level"]), entry["msg"]
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return line.decode("utf-8", "replace")
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return f"{moment:%H:%M:%S} {level.upper():<5} {text}"
