"""What the API answers, as frozen dataclasses.

`raw` keeps the JSON as it came, with the fields that are not named here. Times are RFC 3339 texts,
empty for never. Tokens stay out of the representation, so that they cannot reach a log.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from sth_client.fields import Fields, Raw
from sth_protocol.errors import Unreachable
from sth_protocol.lifecycle import ENDED

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Version:
    """`version`: of the broker; `api_version`: of its HTTP API."""

    service: str
    api_version: str
    version: str
    build: str
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("version", value)
        text = fields.text
        return cls(text("service"), text("apiVersion"), text("version"), text("build"), fields.raw)


@dataclass(frozen=True, slots=True)
class Status:
    """The broker's status; its content is the original's and only in `raw`."""

    raw: Raw = field(compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        return cls(Fields("status", value).raw)


@dataclass(frozen=True, slots=True)
class LoadCheck:
    """Load in percent, memory in bytes."""

    average_load: float
    current_load: float
    memory_free: int
    memory_used: int
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("load check", value)
        return cls(
            fields.number("avgLoad"),
            fields.number("currentLoad"),
            int(fields.number("memFree")),
            int(fields.number("memUsed")),
            fields.raw,
        )


@dataclass(frozen=True, slots=True)
class Sequence:
    """One uploaded package. `instances`: ids of its Instances."""

    id: str
    name: str
    version: str
    language: str
    instances: tuple[str, ...]
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("Sequence", value)
        config = Fields("Sequence's config", fields.mapping("config"))
        return cls(
            fields.text("id"),
            fields.text("name") or config.text("name"),
            config.text("version"),
            config.text("language"),
            tuple(str(each) for each in fields.array("instances")),
            fields.raw,
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """One run. `hub`: id of the machine it runs on; `exit_code` and `reason` once it has ended."""

    id: str
    status: str
    sequence_id: str
    sequence_name: str
    hub: str
    hub_name: str
    created: str
    started: str
    ended: str
    exit_code: int | None
    reason: str
    raw: Raw = field(repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("Instance", value)
        sequence = Fields("Instance's Sequence", fields.mapping("sequence"))
        config = Fields("Sequence's config", sequence.mapping("config"))
        terminated = Fields("Instance's end", fields.mapping("terminated"))
        return cls(
            fields.text("id"),
            fields.text("status"),
            sequence.text("id"),
            sequence.text("name") or config.text("name"),
            fields.text("hub"),
            fields.text("hubName"),
            fields.text("created"),
            fields.text("started"),
            fields.text("ended"),
            terminated.integer("exitcode"),
            terminated.text("reason"),
            fields.raw,
        )


@dataclass(frozen=True, slots=True)
class Health:
    """`process_id` on the Hub that runs it; None if it told none."""

    healthy: bool
    process_id: int | None
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("health", value)
        return cls(fields.flag("healthy"), fields.integer("processId"), fields.raw)


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    content_type: str
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("Topic", value)
        return cls(fields.text("topicName", "topic", "id"), fields.text("contentType"), fields.raw)


@dataclass(frozen=True, slots=True)
class Hub:
    """A joined machine. `instances`: how many run on it."""

    id: str
    name: str
    space: str
    status: str
    arch: str
    instances: int
    last_seen: str
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("Hub", value)
        text = fields.text
        return cls(
            text("id"),
            text("name"),
            text("space"),
            text("status"),
            text("arch"),
            fields.integer("instances") or 0,
            text("lastSeen"),
            fields.raw,
        )


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A new join token: the only time that its text is shown. `command`: the line to run on the
    machine that is to join; `warning`: what would keep it from working, or empty."""

    id: str
    token: str = field(repr=False)
    command: str = field(repr=False)
    expires: str
    uses: int | None
    warning: str
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("join token", value)
        return cls(
            fields.text("id"),
            fields.text("token"),
            fields.text("command"),
            fields.text("expires"),
            fields.integer("uses"),
            fields.text("warning"),
            fields.raw,
        )


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A new API token: the only time that its text is shown."""

    id: str
    token: str = field(repr=False)
    scope: str
    expires: str
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("API token", value)
        text = fields.text
        return cls(text("id"), text("token"), text("scope"), text("expires"), fields.raw)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A join or API token as lists show it, without its secret. `revoked`: when, if it was.
    `is_used_up`: as many machines have joined with it as may."""

    id: str
    name: str
    expires: str
    revoked: str
    is_used_up: bool
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        fields = Fields("token", value)
        text = fields.text
        # An API token has no uses, and of a join token 0 of them are any number.
        uses, used = fields.integer("uses") or 0, fields.integer("used") or 0
        return cls(
            text("id"),
            text("name"),
            text("expires"),
            text("revoked"),
            0 < uses <= used,
            fields.raw,
        )


def list_of(read: Callable[[object], Result]) -> Callable[[object], list[Result]]:
    """A reader of a JSON array whose elements `read` reads; nothing is an empty list."""

    def read_all(value: object) -> list[Result]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise Unreachable(
                f"the answer is not a list but {type(value).__name__}",
                hint="is the URL that of a broker?",
            )
        return [read(each) for each in value]

    return read_all


def id_of(value: object) -> str:
    """The `id` of an answer that tells little else."""
    return Fields("answer with an id", value).text("id")


def nothing_of(value: object) -> None:
    """An answer whose status says everything."""
