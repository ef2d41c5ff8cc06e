"""The numbers of frames: what the peer lacks is kept and sent again, what came is acknowledged.

Numbers are not sent: both sides count. A new link sends again from the first frame that the peer
lacks, in the same order and with the same bytes, so nothing comes twice and nothing is missing.
"""

from collections import deque
from typing import Final

from sth_protocol.errors import ProtocolError, SessionLost

ACK_FRAMES: Final = 32
ACK_BYTES: Final = 256 * 1024
# What a frame that is kept costs beside its bytes: the object and its place in the queue.
OVERHEAD: Final = 64


class SendLog:
    """Numbered frames from their first sending until the peer acknowledges them. `forgotten`: how
    many are acknowledged; `cost`: bytes of memory that the kept ones take, about."""

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
        self.cost += len(frame) + OVERHEAD

    def next_again(self) -> bytes:
        """The next frame to send again."""
        return self._again.popleft()

    def acknowledge(self, count: int) -> None:
        """Forget the first `count` frames of the session. ProtocolError if fewer than that were
        sent over this link, or more were acknowledged before."""
        sent = self.numbered - len(self._again)
        if not self.forgotten <= count <= sent:
            raise ProtocolError(
                f"{count} frames acknowledged; {self.forgotten} were before, {sent} are sent"
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
            self.cost -= len(kept.popleft()) + OVERHEAD
        self.forgotten = count


class Receipts:
    """Numbered frames that came. `received`: how many in this session; `due`: whether the peer
    should be told of them now, and not only beside something else."""

    __slots__ = ("_acknowledged", "_bytes", "due", "received")

    def __init__(self) -> None:
        self.received = 0
        self.due = False
        self._acknowledged = 0
        self._bytes = 0

    @property
    def outstanding(self) -> int:
        """How many came that the peer was not told of."""
        return self.received - self._acknowledged

    def note_bytes(self, count: int) -> None:
        """A message of `count` bytes came, and its frames are counted."""
        self._bytes += count
        if self.outstanding >= ACK_FRAMES or (self.outstanding and self._bytes >= ACK_BYTES):
            self.due = True

    def flush(self) -> None:
        """Let everything that came be acknowledged now."""
        self.due = self.outstanding > 0

    def acknowledge(self) -> int:
        """The count that the peer is being told, by an ACK or by a handshake."""
        self._acknowledged = self.received
        self._bytes = 0
        self.due = False
        return self.received
