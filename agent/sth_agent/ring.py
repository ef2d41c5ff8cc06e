"""The last bytes of a stream that nobody may have read: the oldest give way, and are counted."""


class Ring:
    """At most `capacity` bytes of a stream whose first byte had the offset 0.

    `start`, `end`: absolute offsets of what is held; `dropped`: bytes that gave way to newer ones.
    `whole_lines`: what gives way are whole lines, so that a reader never begins inside one.
    """

    def __init__(self, capacity: int, *, whole_lines: bool = False) -> None:
        self.start = 0
        self.dropped = 0
        self._capacity = capacity
        self._whole_lines = whole_lines
        # Deleting from the front of a bytearray moves a pointer, not the bytes.
        self._buffer = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self._buffer)

    def append(self, data: bytes | memoryview) -> None:
        """Add to the end; the oldest gives way."""
        self._buffer += data
        excess = len(self._buffer) - self._capacity
        if excess <= 0:
            return
        if self._whole_lines:
            newline = self._buffer.find(b"\n", excess - 1)
            excess = newline + 1 if newline >= 0 else len(self._buffer)
        self._remove(excess)
        self.dropped += excess

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes from `offset` on, or from the oldest that is left: where they begin,
        and the bytes; none at the end."""
        begin = max(offset, self.start)
        position = begin - self.start
        return begin, bytes(memoryview(self._buffer)[position : position + limit])

    def forget(self, offset: int) -> None:
        """What stands before `offset` is needed no more."""
        self._remove(min(max(offset - self.start, 0), len(self._buffer)))

    def _remove(self, count: int) -> None:
        del self._buffer[:count]
        self.start += count
