"""Numbered frames from their first sending until the peer acknowledges them.

Numbers are not sent: both sides count. A new link sends again from the first one that the peer
lacks, in the same order and with the same bytes, so nothing comes twice and nothing is missing.
"""

from collections import deque
from typing import Final

from sth_protocol.errors import ProtocolError, SessionLost

# What a frame that is kept costs beside its bytes: the object and its place in the queue.
_OVERHEAD: Final = 64


class SendLog:
    """`forgotten`: frames acknowledged; `cost`: bytes of memory that the kept ones take, about."""

    __slots__ = ("_again", "_kept", "cost", "forgotten")

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._again: deque[bytes] = deque()
        self.forgotten = 0
        self.cost = 0

    @property
    def numbered(self) -> int:
        """How many frames were ever given to `append`."""
        return self.forgotten + len(self._kept)

    @property
    def rewound(self) -> bool:
        """Whether frames wait to be sent again; they go before any new one."""
        return bool(self._again)

    def append(self, frame: bytes) -> None:
        """Keep a frame that is being sent for the first time."""
        self._kept.append(frame)
        self.cost += len(frame) + _OVERHEAD

    def next_again(self) -> bytes:
        """The next frame to send again."""
        return self._again.popleft()

    def acknowledge(self, count: int) -> None:
        """Forget the first `count` frames of the session. ProtocolError if fewer than that were
        sent over this link, or more were acknowledged before."""
        if not self.forgotten <= count <= self.numbered - len(self._again):
            raise ProtocolError(
                f"{count} frames acknowledged; {self.forgotten} were before, "
                f"{self.numbered - len(self._again)} are sent"
            )
        self._forget(count)

    def rewind(self, received: int) -> None:
        """Begin a new link with a peer that has `received` frames. SessionLost if what it lacks is
        forgotten, or if it claims more than there were."""
        if not self.forgotten <= received <= self.numbered:
            raise SessionLost(
                f"the peer has {received} frames; {self.forgotten} to {self.numbered} can go on"
            )
        self._forget(received)
        self._again = deque(self._kept)

    def _forget(self, count: int) -> None:
        kept = self._kept
        for _ in range(count - self.forgotten):
            self.cost -= len(kept.popleft()) + _OVERHEAD
        self.forgotten = count
