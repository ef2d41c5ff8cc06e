"""The maps of the control messages, as frozen dataclasses.

`to_map` and `from_map` are the only way between the two. `from_map` refuses what does not fit
(BadFrame), fills defaults, and ignores fields that it does not know: a newer peer may add some.
Free-form fields have to be JSON: what msgpack can say beyond it could be neither stored nor shown.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sth_protocol.errors import BadFrame
from sth_protocol.lifecycle import State

Json = dict[str, Any]
Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class HubInfo:
    """What a machine says of itself in HELLO. `sandbox`: mechanism -> {state, reason, fix}."""

    name: str
    agent_version: str
    arch: str
    os: str
    python: str
    node: str = ""
    libc: str = ""
    host_name: str = ""
    sandbox: Json = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartSpec:
    """One Instance to start. `language`: "python" or "node"; `main`: path in the package."""

    instance: str
    sequence: str
    sha256: str
    language: str
    main: str
    args: list[Any] = field(default_factory=list)
    config: Json = field(default_factory=dict)
    input_topic: str = ""
    output_topic: str = ""
    epoch: int = 1
    isolation: str = "zygote"
    network: str = "none"
    limits: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """What an agent knows of one Instance. Times in ms since 1970; `exit_code` -1: none yet."""

    instance: str
    sequence: str
    state: State
    started_ms: int = 0
    ended_ms: int = 0
    exit_code: int = -1
    reason: str = ""
    process_id: int = 0
    requires: Json = field(default_factory=dict)
    provides: Json = field(default_factory=dict)
    error: Json = field(default_factory=dict)
    sandbox: Json = field(default_factory=dict)


def to_map(value: Any) -> Json:
    """A dataclass as a map of plain values."""
    return dataclasses.asdict(value)


def from_map(kind: type[Model], values: object) -> Model:
    """A dataclass out of a map that came from a peer. BadFrame says which field is wrong."""
    if not isinstance(values, Mapping):
        raise BadFrame(f"{kind.__name__}: a map is needed, not {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    arguments: Json = {}
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        if each.name in values:
            value = values[each.name]
            if not _fits(hints[each.name], value):
                raise BadFrame(f"{kind.__name__}.{each.name}: {type(value).__name__} does not fit")
            arguments[each.name] = value
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise BadFrame(f"{kind.__name__}.{each.name} is missing")
    return kind(**arguments)


def _fits(hint: Any, value: object) -> bool:
    if hint is Any:
        return _is_json(value)
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(_fits(each, value) for each in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(arguments[0], each) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(arguments[0], key) and _fits(arguments[1], each) for key, each in value.items()
        )
    if hint in (int, float):
        return isinstance(value, hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_json(value: object) -> bool:
    """Without recursion: what comes from a store may be deeper than what comes over a link."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if not all(isinstance(key, str) for key in each):
                return False
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, float):
            if not math.isfinite(each):
                return False
        elif not (each is None or isinstance(each, (str, int))):
            return False
    return True
