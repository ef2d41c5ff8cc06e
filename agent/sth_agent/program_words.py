"""What a program says of itself, made fit to be told to others. Pure.

The program shares its runner's process, so anything may stand where the runner's words belong. What
is too long is cut and what is of another kind is left out: a report that cannot be sent would hide
not only this Instance from the broker but, in the list of all, every other one of this machine.
"""

from collections.abc import Mapping
from typing import Any

# Bytes. A whole report has to fit into a control message, several times over for the message of an
# error, which is in its reason, too.
LONGEST_MESSAGE = 4096
LONGEST_TYPE = 256
_LONGEST_NAME = 64
_LONGEST_VALUE = 1024
_LONGEST_PLACE = 256
MOST_FIELDS = 8
MOST_FRAMES = 24
# Beyond this no line number, position or count is one.
_LARGEST = 2**63

Json = dict[str, Any]


def text(value: object, most: int) -> str:
    """At most `most` bytes of a text, in characters that can be sent; "" for anything else."""
    if not isinstance(value, str):
        return ""
    # Every character has at least one byte: no more of them are looked at.
    return value[:most].encode(errors="replace")[:most].decode(errors="ignore")


def whole(value: object) -> int:
    """A position or a count; 0 for anything else."""
    return value if type(value) is int and 0 <= value < _LARGEST else 0


def declaration(value: object) -> Json:
    """What a program requires or provides: texts by their names."""
    if not isinstance(value, dict):
        return {}
    words = [(key, each) for key, each in value.items() if isinstance(each, str)]
    return {
        text(key, _LONGEST_NAME): text(each, _LONGEST_VALUE) for key, each in words[:MOST_FIELDS]
    }


def error(message: Mapping[str, Any]) -> Json:
    """`{exit_code, message, traceback}`, as the runner tells why it ends."""
    code = message.get("exit_code")
    return {
        "exit_code": code if type(code) is int and 0 <= code < 256 else None,
        "message": text(message.get("message"), LONGEST_MESSAGE),
        "traceback": _traceback(message.get("traceback")),
    }


def _traceback(value: object) -> Json | None:
    if not isinstance(value, dict):
        return None
    found = value.get("frames")
    frames = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return {
        "type": text(value.get("type"), LONGEST_TYPE),
        "message": text(value.get("message"), LONGEST_MESSAGE),
        "frames": [_frame(each) for each in frames[-MOST_FRAMES:]],
    }


def _frame(value: Mapping[str, Any]) -> Json:
    return {
        "file": text(value.get("file"), _LONGEST_PLACE),
        "line": whole(value.get("line")),
        "function": text(value.get("function"), _LONGEST_PLACE),
        "source": text(value.get("source"), _LONGEST_PLACE),
    }
