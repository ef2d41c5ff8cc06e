"""Where the frames of an Instance's output stand in its socket, found in the peeked bytes.

Pure. Two positions matter and must not be confused: the socket position counts every byte of the
socket from the first that was peeked, headers included; the stream offset counts payload only, and
is the runner's own.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Header


@dataclass(frozen=True, slots=True)
class Cut:
    """A place inside a frame: `taken` bytes of its payload stand before it."""

    header: Header
    taken: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a frame's payload. `offset`: of its first byte, in the stream; `last`: the frame
    ends with it; `position`: of the socket, after it."""

    header: Header
    data: memoryview
    offset: int
    last: bool
    position: int

    @property
    def end(self) -> int:
        """The stream offset after it. Only DATA is part of the stream."""
        return self.offset + (len(self.data) if self.header.type == frames.DATA else 0)

    def without(self, count: int) -> "Piece":
        """The same without its first bytes."""
        return replace(self, data=self.data[count:], offset=self.offset + count)

    @property
    def cut(self) -> Cut | None:
        """The place after it, if that is inside a frame."""
        if self.last:
            return None
        return Cut(self.header, self.offset + len(self.data) - self.header.offset)


class OutputWalker:
    """Peeked bytes in, pieces of payload out; nothing but a cut header is ever copied.

    `position`: of the socket, where peeking begins; `inside`: the frame in which it begins.
    """

    def __init__(self, *, position: int = 0, inside: Cut | None = None) -> None:
        self.position = position
        self._head = bytearray()
        self._header = inside.header if inside else None
        self._taken = inside.taken if inside else 0

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


@dataclass(frozen=True, slots=True)
class Mark:
    """A place up to which the socket may be emptied once the stream is consumed to `offset`.
    `cut`: it stands inside a frame."""

    offset: int
    position: int
    cut: Cut | None = None


class Marks:
    """The places up to which the socket may be emptied, in their order.

    They are the ends of frames, so that a successor of this process finds a header first. Only in a
    frame that is larger than the socket's buffer there are others.
    """

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()

    def add(self, mark: Mark) -> None:
        self._marks.append(mark)

    def reached(self, consumed: int) -> Mark | None:
        """The last place before `consumed`; None if there is no new one."""
        mark = None
        while self._marks and self._marks[0].offset <= consumed:
            mark = self._marks.popleft()
        return mark

    def clear(self) -> None:
        self._marks.clear()
