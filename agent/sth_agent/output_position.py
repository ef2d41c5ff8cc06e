"""How far an Instance's output has been consumed, for a successor of this process.

Written before the socket is emptied, into the page cache only: it has to survive the agent, not the
machine, whose end is the Instance's end, too.
"""

import os
import struct
from pathlib import Path

_LAYOUT = struct.Struct("<QQB")


class OutputPosition:
    """`offset`: everything before it in the stream has reached its reader; `sequence`: of the next
    batch in the output Topic; `cut`: the socket may have been emptied to inside a frame."""

    def __init__(self, path: Path) -> None:
        self.offset = 0
        self.sequence = 0
        self.cut = False
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stored = os.pread(self._descriptor, _LAYOUT.size, 0)
        if len(stored) == _LAYOUT.size:
            self.offset, self.sequence, cut = _LAYOUT.unpack(stored)
            self.cut = bool(cut)

    def move(self, offset: int, *, sequence: int | None = None, cut: bool = False) -> None:
        """Everything before `offset` is consumed."""
        self.offset = offset
        if sequence is not None:
            self.sequence = sequence
        self.cut = cut
        os.pwrite(self._descriptor, _LAYOUT.pack(offset, self.sequence, cut), 0)

    def close(self, *, remove: bool = False) -> None:
        """`remove`: the Instance is forgotten."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if remove:
            self._path.unlink(missing_ok=True)
