"""An Instance's output: read ahead by peeking, emptied only as its reader has consumed it.

What was peeked and not yet consumed stays in the kernel. A reader that breaks off leaves the rest
to the next one, and an agent that is killed leaves it to its successor.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sth_agent.edge_poll import EdgePoll
from sth_agent.output_position import OutputPosition
from sth_agent.output_walker import Cut, Mark, Marks, OutputWalker, Piece
from sth_protocol.errors import SthError, StreamFailed
from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import FrameError

logger = logging.getLogger(__name__)

SO_PEEK_OFF = 42
PEEK_BYTES = 256 * 1024
# The smallest buffer that a machine gives holds such a frame whole; a larger one may not fit, and
# its first part has to leave before its last can come.
LARGE_FRAME = 160 * 1024
_LARGE_STEP = 32 * 1024

# What is thrown away is never looked at; all Instances share the place where it lands.
_waste = bytearray(PEEK_BYTES)

Declared = Callable[[str, dict[str, Any]], None]


class Sink(Protocol):
    """Who takes the output: a reader's channel, or a Topic."""

    def wants(self) -> bool:
        """Whether there is credit for more."""

    def take(self, piece: Piece) -> None:
        """A part of the stream, after its position."""

    def ended(self, error: SthError | None) -> None:
        """There is no more. `error`: it is not the end that the program meant."""


class Output:
    """`declared` is called with the content type and `provides` as soon as the program says them.

    At most one sink at a time; it begins where the last one's consumption ended.
    """

    def __init__(
        self, descriptor: int, *, poll: EdgePoll, position: OutputPosition, declared: Declared
    ) -> None:
        self.position = position
        self.sink: Sink | None = None
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        self._poll = poll
        self._declared = declared
        self._is_declared = False
        self._type_parts = bytearray()
        self._walker = OutputWalker()
        self._marks = Marks()
        self._emptied = 0
        self._inside: Cut | None = None
        self._is_over = False
        self._error: SthError | None = None
        self._pumping = False
        if position.cut:
            self._error = StreamFailed(
                "the agent was killed inside a batch larger than the Instance's buffer",
                hint="what the Instance had written from there on cannot be told apart",
            )
        poll.add(descriptor, self.pump)

    def attach(self, sink: Sink) -> None:
        """Give what was not consumed, and all that follows, to this sink."""
        self.sink = sink
        self._is_over = False
        self._marks.clear()
        self._walker = OutputWalker(position=self._emptied, inside=self._inside)
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        self.pump()

    def detach(self, sink: Sink) -> None:
        """Give it nothing more."""
        if self.sink is sink:
            self.sink = None

    def consumed(self, offset: int, *, sequence: int | None = None) -> None:
        """The stream has reached its reader up to `offset`."""
        if offset > self.position.offset or sequence is not None:
            mark = self._marks.reached(offset)
            cut = mark.cut if mark is not None else self._inside
            self.position.move(offset, sequence=sequence, cut=cut is not None)
            if mark is not None:
                self._empty_to(mark)

    def absorb(self, piece: Piece) -> None:
        """A large frame has to leave the socket before it is whole; its sink holds it now."""
        self.position.move(self.position.offset, cut=True)
        self._marks.reached(piece.end)
        self._empty_to(Mark(piece.end, piece.position, piece.cut))

    def pump(self) -> None:
        """Hand on what is there, as far as the sink wants it."""
        # A sink that takes a piece may ask for more from inside: the loop below sees to that.
        if self._pumping or self._socket.fileno() < 0:
            return
        self._pumping = True
        try:
            while self._wants() and self._read():
                pass
        finally:
            self._pumping = False

    def close(self) -> None:
        """Let go of the socket; the spawner keeps its own."""
        if self._socket.fileno() >= 0:
            self._poll.remove(self._socket.fileno())
            self._socket.close()

    def _wants(self) -> bool:
        if self._is_over:
            return False
        if self.sink is not None:
            return self.sink.wants()
        return not self._is_declared and self._error is None

    def _read(self) -> bool:
        """Read once; False if there was nothing."""
        if self._error is not None:
            self._end(self._error)
            return False
        try:
            # Without a sink only the first frame, which says what the output is, matters.
            size = PEEK_BYTES if self.sink is not None else frames.HEADER_BYTES
            data = self._socket.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._end(StreamFailed("the program ended without ending its output"))
            return False
        try:
            for piece in self._walker.feed(data):
                self._take(piece)
        except (FrameError, ValueError, RecursionError) as error:
            logger.warning("an Instance's output is broken: %s", error)
            self._error = StreamFailed(f"the output cannot be read: {error}")
            self._end(self._error)
            return False
        return True

    def _take(self, piece: Piece) -> None:
        match piece.header.type:
            case frames.DATA:
                for mark in _marks_of(piece):
                    self._marks.add(mark)
                known = self.position.offset - piece.offset
                if self.sink is not None and known < len(piece.data):
                    self.sink.take(piece.without(known) if known > 0 else piece)
            case frames.TYPE:
                self._type_parts += piece.data
                if piece.last:
                    self._declare()
            case frames.END:
                self._end(None)

    def _declare(self) -> None:
        text, self._type_parts = bytes(self._type_parts), bytearray()
        if self._is_declared:
            return
        self._is_declared = True
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError("TYPE without an object")
        provides = said.get("provides")
        self._declared(
            str(said.get("content_type") or ""), provides if isinstance(provides, dict) else {}
        )

    def _end(self, error: SthError | None) -> None:
        self._is_over = True
        if self.sink is not None:
            self.sink.ended(error)

    def _empty_to(self, mark: Mark) -> None:
        """Take out of the socket what stands before the mark: it was peeked, so it is there."""
        count = mark.position - self._emptied
        while count > 0:
            count -= self._socket.recv_into(_waste, min(count, len(_waste)))
        self._emptied = mark.position
        self._inside = mark.cut


def _marks_of(piece: Piece) -> Iterator[Mark]:
    """Where the socket may be emptied to within a piece and at its end."""
    if piece.header.length > LARGE_FRAME:
        begin = piece.position - len(piece.data)
        for step in range(_LARGE_STEP, len(piece.data), _LARGE_STEP):
            offset = piece.offset + step
            yield Mark(offset, begin + step, Cut(piece.header, offset - piece.header.offset))
        yield Mark(piece.end, piece.position, piece.cut)
    elif piece.last:
        yield Mark(piece.end, piece.position)
