"""What an agent asks for: parsed, and every field checked.

A root spawner is commanded by an unprivileged agent. It takes content hashes, numbers and words of
fixed sets, never a path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sth_sandbox.errors import bad_request

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INSTANCE = re.compile(r"[a-zA-Z0-9_-]{1,64}")

LANGUAGES = ("python", "node")
ISOLATIONS = ("zygote", "exec")
NETWORKS = ("none", "loopback")
MAX_GRACE_MS = 600_000
MAX_LIMITS = 32
LONGEST_LIMIT = 64
_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One Instance to start. `limits`: name -> wanted value, as the agent gave them."""

    instance: str
    sha256: str
    language: str
    isolation: str
    network: str
    limits: Mapping[str, Any]


def instance_spec(fields: Mapping[str, Any]) -> InstanceSpec:
    """The spec in a `start` request; BAD_REQUEST names the field that is wrong."""
    limits = fields.get("limits", {})
    if not isinstance(limits, dict):
        raise bad_request("limits: an object is wanted")
    # All of them are answered, each with a reason.
    if len(limits) > MAX_LIMITS or any(len(name) > LONGEST_LIMIT for name in limits):
        raise bad_request(
            f"limits: at most {MAX_LIMITS} with names of at most {LONGEST_LIMIT} characters"
        )
    return InstanceSpec(
        instance=instance_id(fields),
        sha256=sha256(fields),
        language=_one_of(fields, "language", LANGUAGES, LANGUAGES[0]),
        isolation=_one_of(fields, "isolation", ISOLATIONS, ISOLATIONS[0]),
        network=_one_of(fields, "network", NETWORKS, NETWORKS[0]),
        limits=limits,
    )


def instance_id(fields: Mapping[str, Any]) -> str:
    return _matching(fields, "instance", _INSTANCE, "1 to 64 of a-z A-Z 0-9 _ -")


def sha256(fields: Mapping[str, Any]) -> str:
    return _matching(fields, "sha256", _SHA256, "64 hexadecimal digits")


def signal_number(fields: Mapping[str, Any]) -> int:
    return integer(fields, "signal", 1, _LAST_SIGNAL)


def integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """A whole number from low to high."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise bad_request(f"{name}: a whole number from {low} to {high} is wanted")
    return value


def _matching(fields: Mapping[str, Any], name: str, rule: re.Pattern[str], wanted: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not rule.fullmatch(value):
        raise bad_request(f"{name}: {wanted} are wanted")
    return value


def _one_of(fields: Mapping[str, Any], name: str, words: tuple[str, ...], usual: str) -> str:
    value = fields.get(name, usual)
    if value not in words:
        raise bad_request(f"{name}: one of {', '.join(words)} is wanted")
    return str(value)
