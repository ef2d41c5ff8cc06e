"""What goes into a program: bodies of HTTP requests, one after the other, into `input` or `stdin`.

A byte counts as consumed when the program's socket has taken it, never before.
"""

from collections import deque
from typing import Protocol

from sth_agent.channels import Channel, ChannelUser
from sth_agent.stream_writer import Done
from sth_protocol.errors import (
    Conflict,
    MethodNotAllowed,
    NotAcceptable,
    SthError,
    StreamFailed,
    UnsupportedMediaType,
)


class Target(Protocol):
    """Where the bytes go."""

    def check(self, content_type: str) -> None:
        """Raise the error with which a writer of this type is refused now."""

    def begin(self, content_type: str, *, ends: bool) -> None:
        """A writer's turn has come. `ends`: the stream ends with it."""

    def write(self, data: bytes, done: Done) -> None: ...

    def end(self, done: Done) -> None:
        """The stream ends here; `done` when everything before has been taken."""

    def flush(self, done: Done) -> None:
        """`done` when everything so far has been taken."""


class Feeder:
    """Lets writers of one stream have their turns."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._current: Feed | None = None
        self._waiting: deque[Feed] = deque()

    def serve(self, channel: Channel) -> None:
        """Take a writer's channel; it is accepted when its turn comes, or refused at once."""
        content_type = str(channel.request.get("content_type") or "")
        try:
            self._target.check(content_type)
        except SthError as error:
            channel.reset(error)
            return
        feed = Feed(self, self._target, channel, content_type)
        if self._current is None:
            self._start(feed)
        else:
            self._waiting.append(feed)

    def fail(self, error: SthError) -> None:
        """The program takes no more: every writer hears it."""
        feeds = [*([self._current] if self._current else []), *self._waiting]
        self._current = None
        self._waiting.clear()
        for feed in feeds:
            feed.break_off(error)

    def left(self, feed: "Feed") -> None:
        """A writer is done, or has broken off."""
        if feed is not self._current:
            if feed in self._waiting:
                self._waiting.remove(feed)
            return
        self._current = None
        while self._current is None and self._waiting:
            self._start(self._waiting.popleft())

    def _start(self, feed: "Feed") -> None:
        try:
            # Another writer may have ended the stream meanwhile.
            self._target.check(feed.content_type)
        except SthError as error:
            feed.break_off(error)
            return
        self._current = feed
        feed.start()


class Feed(ChannelUser):
    """One writer. What comes before its turn waits, and is bounded by the channel's credit."""

    def __init__(self, feeder: Feeder, target: Target, channel: Channel, content_type: str) -> None:
        self.content_type = content_type
        self._feeder = feeder
        self._target = target
        self._channel = channel
        self._ends = channel.request.get("end") is True
        self._held: list[bytes] = []
        self._has_turn = False
        self._is_finished = False
        self._is_broken = False
        channel.user = self

    def start(self) -> None:
        """Its turn has come."""
        self._has_turn = True
        self._channel.accept({})
        self._target.begin(self.content_type, ends=self._ends)
        held, self._held = self._held, []
        for data in held:
            self._write(data)
        if self._is_finished:
            self._finish()

    def break_off(self, error: SthError) -> None:
        """End the channel; the feeder is not told."""
        self._is_broken = True
        self._channel.reset(error)

    def received(self, data: bytes, more: bool) -> None:
        if self._has_turn:
            self._write(data)
        else:
            self._held.append(data)

    def finished(self) -> None:
        self._is_finished = True
        if self._has_turn:
            self._finish()

    def reset(self, error: SthError, consumed: int | None) -> None:
        self._is_broken = True
        self._feeder.left(self)

    def _write(self, data: bytes) -> None:
        channel, count = self._channel, len(data)
        self._target.write(data, lambda: channel.consume(count))

    def _finish(self) -> None:
        if self._ends:
            self._target.end(self._taken)
        else:
            self._target.flush(self._taken)

    def _taken(self) -> None:
        if not self._is_broken:
            self._channel.finish()
            self._feeder.left(self)


class TypedTarget:
    """The rules of the original for a stream whose type is fixed by its first writer."""

    def __init__(self) -> None:
        self.content_type = ""
        self.is_ended = False
        self.is_fed_by_topic = False
        self.is_gone = False

    def check(self, content_type: str) -> None:
        if self.is_gone:
            raise StreamFailed("the program has ended")
        if self.is_fed_by_topic:
            raise MethodNotAllowed("Input provided in other way")
        if not content_type:
            raise NotAcceptable("Content-Type must be defined")
        if self.content_type and content_type != self.content_type:
            raise UnsupportedMediaType(
                f"the input of this Instance is {self.content_type}, not {content_type}"
            )
        if self.is_ended:
            raise Conflict(
                "the input of this Instance has ended",
                hint="the writer before said so; x-end-stream: false leaves it open",
            )
