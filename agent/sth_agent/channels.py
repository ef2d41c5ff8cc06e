"""A channel of a session as its user sees it, and what a user of one has to be."""

from collections.abc import Callable, Mapping
from typing import Any

from sth_protocol.errors import SthError
from sth_protocol.mux import Mux


class ChannelUser:
    """Told what happens on a channel, from the loop's callbacks: nothing here may block.

    `reset` is the last thing that a user hears, also when the session is lost; `finished` is only
    the end of the peer's direction.
    """

    def accepted(self, info: Mapping[str, Any]) -> None:
        """The peer took the channel that we opened."""

    def received(self, data: bytes, more: bool) -> None:
        """Bytes came; every one has to be consumed, by `Channel.consume`."""

    def finished(self) -> None:
        """The peer sends no more; it was no break."""

    def credited(self, consumed: int) -> None:
        """More may be sent, or more was consumed: `consumed` bytes of ours so far."""

    def reset(self, error: SthError, consumed: int | None) -> None:
        """The channel is over. `consumed`: bytes of ours that the peer had consumed, if it said."""


class Channel:
    """One stream of a session. Once the channel is over every intent does nothing."""

    __slots__ = ("_mux", "_wake", "lost", "number", "request", "user")

    def __init__(
        self, mux: Mux, wake: Callable[[], None], number: int, request: Mapping[str, Any]
    ) -> None:
        self._mux = mux
        self._wake = wake
        self.number = number
        self.request = request
        self.user = ChannelUser()
        # Set by the session when it is lost with all its channels.
        self.lost = False

    def accept(self, info: Mapping[str, object]) -> None:
        self._mux.accept(self.number, info)
        self._wake()

    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        """Queue bytes that nobody changes any more; they go out as credit allows."""
        self._mux.send(self.number, data, more=more)
        self._wake()

    @property
    def sendable(self) -> int:
        """Bytes that may be sent now without piling up; may be negative."""
        return self._mux.sendable(self.number)

    @property
    def over(self) -> bool:
        """Whether nothing moves on it any more, in either direction."""
        return self.lost or self.number not in self._mux.channels()

    def finish(self) -> None:
        """Send no more after what is queued."""
        self._mux.finish(self.number)
        self._wake()

    def reset(self, error: SthError) -> None:
        """End the channel both ways; its user is not told."""
        self.user = ChannelUser()
        self._mux.reset(self.number, error.code, error.message)
        self._wake()

    def consume(self, count: int) -> None:
        """`count` more of the bytes that came have reached their destination."""
        self._mux.consume(self.number, count)
        self._wake()
