"""What a multiplexer tells its driver: the meaning of the frames that came."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a channel; answer with `accept` or `reset`."""

    channel: int
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer accepted a channel that we opened."""

    channel: int
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a channel. `more`: the channel's message goes on in the next Data. Empty only where
    it ends a message that was begun. Every byte has to be consumed, by `Mux.consume`."""

    channel: int
    data: bytes
    more: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer sends no more on this channel; it was no break."""

    channel: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer ended the channel in both directions. `consumed`: bytes of ours that it consumed."""

    channel: int
    code: str
    message: str
    consumed: int


@dataclass(frozen=True, slots=True)
class Credited:
    """More can be sent on the channel, or more was consumed: `consumed` is the absolute offset."""

    channel: int
    consumed: int


@dataclass(frozen=True, slots=True)
class Control:
    """A control message; `sth_protocol.control` knows what it says."""

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to our ping of that token."""

    token: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer ends the link, and says why."""

    code: str
    message: str


Event = Opened | Accepted | Data | Finished | Reset | Credited | Control | Pong | Closed
