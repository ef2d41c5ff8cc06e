"""The first message of each side of a link, and the last: HELLO, WELCOME, CLOSE.

Each is a websocket message of one frame. HELLO comes from a machine that is enrolled but not
trusted, so every field has a limit before anything looks at it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sth_protocol import frames
from sth_protocol.errors import BadFrame, BadHandshake, SthError, VersionUnsupported, from_wire
from sth_protocol.frames import FrameType
from sth_protocol.model import HubInfo, Model, from_map, to_map

VERSIONS: Final = (1,)
FEATURES: Final[frozenset[str]] = frozenset()
BOOT_BYTES: Final = 16
MAX_ITEMS: Final = 64
MAX_WORD: Final = 256


@dataclass(frozen=True, slots=True)
class Hello:
    """What an agent says first. `epoch`: rises with every connection; `broker_boot` and `received`
    name the session to resume, if there is one: `received` numbered frames came in it."""

    agent_boot: bytes
    epoch: int
    hub: HubInfo
    broker_boot: bytes | None = None
    received: int = 0
    versions: list[int] = field(default_factory=lambda: list(VERSIONS))
    features: list[str] = field(default_factory=lambda: sorted(FEATURES))


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a broker answers. `resumed`: the session goes on, `received` numbered frames came in it;
    otherwise both sides begin a new one. `hub` and `space`: the names the agent goes by."""

    version: int
    broker_boot: bytes
    resumed: bool
    received: int
    time_ms: int
    heartbeat_ms: int
    hub: str
    space: str
    addresses: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Close:
    """The last message: why its sender ends the link."""

    code: str
    message: str

    def error(self) -> SthError:
        """The error of the code."""
        return from_wire({"code": self.code, "message": self.message})


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides of a link use."""

    version: int
    features: frozenset[str]


def negotiate(
    hello: Hello,
    *,
    versions: Collection[int] = VERSIONS,
    features: Collection[str] = FEATURES,
) -> Agreed:
    """The highest version and all features that both know. VersionUnsupported without a common
    version."""
    common = set(hello.versions) & set(versions)
    if not common:
        raise VersionUnsupported(
            f"the agent speaks version {_listed(hello.versions)} of the link, "
            f"the broker {_listed(versions)}"
        )
    return Agreed(max(common), frozenset(hello.features) & frozenset(features))


def encode_hello(hello: Hello) -> bytes:
    return frames.encode_map(FrameType.HELLO, 0, 0, to_map(hello))


def encode_welcome(welcome: Welcome) -> bytes:
    return frames.encode_map(FrameType.WELCOME, 0, 0, to_map(welcome))


def encode_close(code: str, message: str) -> bytes:
    """A CLOSE; a message of more than 4096 characters is cut."""
    values = {"code": frames.clean(code), "message": frames.clean(message)}
    return frames.encode_map(FrameType.CLOSE, 0, 0, values)


def decode_hello(message: bytes) -> Hello:
    """The first message of an agent. BadHandshake if it is another, or a field is wrong;
    VersionUnsupported if its versions show that the rest cannot be understood."""
    kind, values = _only_frame(message)
    if kind != FrameType.HELLO:
        raise BadHandshake(f"the first frame is {kind.name}, not HELLO")
    _check_versions(values)
    hello = _from_map(Hello, {**values, "hub": _from_map(HubInfo, values.get("hub"))})
    _check_boot(hello.agent_boot)
    if hello.broker_boot is not None:
        _check_boot(hello.broker_boot)
    _check_numbers(hello.epoch, hello.received)
    _check_words(hello.features)
    return hello


def decode_answer(message: bytes) -> Welcome | Close:
    """The first message of a broker. BadHandshake if it is neither; VersionUnsupported for a
    version that was not offered."""
    kind, values = _only_frame(message)
    if kind == FrameType.CLOSE:
        return Close(str(values.get("code", "")), str(values.get("message", "")))
    if kind != FrameType.WELCOME:
        raise BadHandshake(f"the first frame is {kind.name}, not WELCOME")
    if values.get("version") not in VERSIONS:
        raise VersionUnsupported(
            f"the broker answers in version {str(values.get('version'))[:20]} of the link, "
            f"this agent speaks {_listed(VERSIONS)}"
        )
    welcome = _from_map(Welcome, values)
    _check_boot(welcome.broker_boot)
    _check_numbers(welcome.received, welcome.time_ms, welcome.heartbeat_ms)
    _check_words([*welcome.features, *welcome.addresses, welcome.hub, welcome.space])
    if welcome.heartbeat_ms == 0:
        raise BadHandshake("a heartbeat every 0 ms")
    return welcome


def _only_frame(message: bytes) -> tuple[FrameType, dict[str, Any]]:
    try:
        found = list(frames.decode(message))
        if len(found) != 1:
            raise BadHandshake(f"{len(found)} frames in a message of the handshake")
        kind, _channel, _arg, payload = found[0]
        if frames.SHAPES[kind].payload != "map":
            raise BadHandshake(f"the first frame is {kind.name}")
        return kind, frames.decode_map(payload)
    except BadFrame as error:
        raise BadHandshake(f"not a handshake: {error.message}") from None


def _from_map(kind: type[Model], values: object) -> Model:
    try:
        return from_map(kind, values)
    except BadFrame as error:
        raise BadHandshake(error.message) from None


def _check_versions(values: Mapping[str, Any]) -> None:
    versions = values.get("versions")
    if not isinstance(versions, list) or not 1 <= len(versions) <= MAX_ITEMS:
        raise BadHandshake("HELLO without versions")
    if not all(type(each) is int and 0 < each < 2**32 for each in versions):
        raise BadHandshake("versions are positive integers")
    if not set(versions) & set(VERSIONS):
        # A later version may look different in everything but this field.
        raise VersionUnsupported(
            f"the agent speaks version {_listed(versions)} of the link, "
            f"the broker {_listed(VERSIONS)}"
        )


def _check_boot(boot: bytes) -> None:
    if len(boot) != BOOT_BYTES:
        raise BadHandshake(f"a boot id of {len(boot)} bytes; it has {BOOT_BYTES}")


def _check_numbers(*numbers: int) -> None:
    for number in numbers:
        if not 0 <= number <= frames.MAX_INTEGER:
            raise BadHandshake(f"the number {number} is out of range")


def _check_words(words: list[str]) -> None:
    if len(words) > MAX_ITEMS or any(len(each) > MAX_WORD for each in words):
        raise BadHandshake(f"more than {MAX_ITEMS} words, or one of more than {MAX_WORD} letters")


def _listed(versions: Collection[int]) -> str:
    return ", ".join(str(each) for each in sorted(versions))
