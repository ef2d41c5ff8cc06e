"""Where the frames of an Instance's output stand in its socket, found in the bytes as they are peeked.

Pure. Two positions matter and must not be confused: the socket position counts every byte of the
socket from the first that was peeked, headers included; the stream offset counts payload only, and
is the runner's own.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Header


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a frame's payload. `offset`: of its first byte, in the stream; `last`: the frame
    ends with it; `position`: of the socket, after it."""

    header: Header
    data: memoryview
    offset: int
    last: bool
    position: int


class OutputWalker:
    """Peeked bytes in, pieces of payload out; nothing but a cut header is ever copied."""

    def __init__(self) -> None:
        self.position = 0
        self._head = bytearray()
        self._header: Header | None = None
        self._taken = 0

    @property
    def current(self) -> Header | None:
        """The header of the frame that is not whole yet."""
        return self._header

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces in `data`, which follows what was fed before. frames.FrameError for what is no
        frame. It must be walked to its end."""
        view = memoryview(data)
        begin = 0
        while True:
            if self._header is None:
                begin = self._read_header(view, begin)
                if self._header is None:
                    return
            header = self._header
            count = min(header.length - self._taken, len(view) - begin)
            last = self._taken + count == header.length
            if not count and not last:
                return
            offset = header.offset + self._taken
            self._taken += count
            self.position += count
            if last:
                self._header, self._taken = None, 0
            yield Piece(header, view[begin : begin + count], offset, last, self.position)
            begin += count

    def _read_header(self, view: memoryview, begin: int) -> int:
        if not self._head and len(view) - begin >= frames.HEADER_BYTES:
            self._header = frames.unpack_header(view, begin)
            self.position += frames.HEADER_BYTES
            return begin + frames.HEADER_BYTES
        count = min(frames.HEADER_BYTES - len(self._head), len(view) - begin)
        self._head += view[begin : begin + count]
        self.position += count
        if len(self._head) == frames.HEADER_BYTES:
            self._header = frames.unpack_header(self._head)
            self._head.clear()
        return begin + count


class Marks:
    """Up to where the socket may be emptied when the stream was consumed up to some offset.

    Only whole frames are emptied out: a successor of this process has to find a header first.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()

    def add(self, offset: int, position: int) -> None:
        """A frame ends at this offset of the stream and this position of the socket."""
        self._marks.append((offset, position))

    def reached(self, consumed: int) -> int | None:
        """The socket position of the last whole frame before `consumed`; None if there is no new
        one."""
        position = None
        while self._marks and self._marks[0][0] <= consumed:
            position = self._marks.popleft()[1]
        return position
