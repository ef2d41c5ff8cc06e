"""The two ways into a program: its framed input, and its standard input."""

from collections.abc import Callable, Mapping
from typing import Any

from sth_agent import program_words
from sth_agent.feeds import TypedTarget
from sth_agent.stream_writer import Done, StreamWriter
from sth_protocol.errors import Conflict, StreamFailed
from sth_sandbox.runners import frames


class ProgramInput(TypedTarget):
    """The runner's input socket: TYPE once, DATA, END.

    `is_taken_over`: another agent has written here before. Nothing is written until the runner has
    said where it stands.
    """

    def __init__(self, descriptor: int, *, is_taken_over: bool, gone: Callable[[], None]) -> None:
        super().__init__()
        self._gone = gone
        self._writer = StreamWriter(descriptor, failed=self._failed)
        self._offset = 0
        self._number = 0
        # While the runner is asked where it stands.
        self._delayed: list[Callable[[], None]] | None = [] if is_taken_over else None

    def resynced(self, answer: Mapping[str, Any]) -> None:
        """Where the runner stands: what waited goes on from there."""
        if self._delayed is None:
            return
        self._offset = program_words.whole(answer.get("offset"))
        self._number = program_words.whole(answer.get("sequence"))
        said = program_words.text(answer.get("content_type"), program_words.LONGEST_TYPE)
        self.content_type = self.content_type or said
        self.is_ended = answer.get("ended") is True
        delayed, self._delayed = self._delayed or [], None
        for action in delayed:
            action()

    def begin(self, content_type: str, *, ends: bool) -> None:
        if self._delayed is not None:
            self._delayed.append(lambda: self.begin(content_type, ends=ends))
            return
        if self.content_type:
            return
        self.content_type = content_type
        flags = frames.FEED_END if ends else 0
        self._writer.write(frames.pack_frame(frames.TYPE, content_type.encode(), flags=flags))

    def write(self, data: bytes | memoryview, done: Done) -> None:
        self.write_records(data, 0, done)

    def write_records(self, data: bytes | memoryview, count: int, done: Done) -> None:
        """Bytes of the stream. `count`: the whole records in them, 0 if they are cut anywhere."""
        if self._delayed is not None:
            self._delayed.append(lambda: self.write_records(data, count, done))
            return
        header = frames.pack_header(
            frames.DATA,
            len(data),
            flags=frames.RECORDS if count else 0,
            count=count,
            offset=self._offset,
            number=self._number,
        )
        self._offset += len(data)
        self._number += count
        self._writer.write(header, data, done=done)

    def end(self, done: Done) -> None:
        self.is_ended = True
        if self._delayed is not None:
            self._delayed.append(lambda: self.end(done))
            return
        header = frames.pack_header(frames.END, 0, offset=self._offset, number=self._number)
        self._writer.write(header, done=done)

    def flush(self, done: Done) -> None:
        if self._delayed is not None:
            self._delayed.append(lambda: self.flush(done))
            return
        self._writer.write(b"", done=done)

    def close(self) -> None:
        self.is_gone = True
        self._writer.close()

    def _failed(self) -> None:
        self.is_gone = True
        self._gone()


class StandardInput:
    """The program's descriptor 0, a pipe. `ended` is called when its last writer is done: the
    spawner has an end of it, too."""

    def __init__(
        self, descriptor: int, *, is_closed: bool, ended: Callable[[], None], gone: Done
    ) -> None:
        self._ended = ended
        self._gone = gone
        self._is_gone = False
        self._writer = StreamWriter(descriptor, failed=self._failed)
        if is_closed:
            self._writer.close()

    def check(self, content_type: str) -> None:
        if self._is_gone:
            raise StreamFailed("the program has ended")
        if not self._writer.is_open:
            raise Conflict("the standard input of this Instance has ended")

    def begin(self, content_type: str, *, ends: bool) -> None:
        """A pipe has no type."""

    def write(self, data: bytes, done: Done) -> None:
        self._writer.write(data, done=done)

    def end(self, done: Done) -> None:
        self._writer.write(b"", done=lambda: self._close(done))

    def flush(self, done: Done) -> None:
        self._writer.write(b"", done=done)

    def close(self) -> None:
        self._is_gone = True
        self._writer.close()

    def _close(self, done: Done) -> None:
        self._writer.close()
        self._ended()
        done()

    def _failed(self) -> None:
        self._is_gone = True
        self._gone()
