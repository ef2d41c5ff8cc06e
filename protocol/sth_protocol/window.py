"""Flow control of one direction of a channel, by absolute byte offsets.

The receiver has a window of `size` bytes. The limit it grants is `consumed + size`: the sender may
send up to that offset and no further. `consumed` is what the user of the channel has put where it
belongs (a process, a journal, an HTTP peer), so that a slow user stops the sender and nothing piles
up between them. A new limit is told when it would be at least half a window above the one before,
or 128 KiB: the sender has the rest to go on with while the grant travels, and small reads cost no
frame each. The 128 KiB matter to a sender that keeps what is not consumed in a place smaller than
a large window, such as the socket of an Instance: it would wait for the next tick otherwise. For
the same reason a new limit is also told when 128 frames have come since the last one: a socket of
the default size holds no more than 278 writes, however small they are (measured).

A window begins with 16 KiB, which nobody can take away: however many channels stand still, another
one always moves. It doubles, up to 1 MiB, when a whole window is consumed between two ticks of the
driver (about a second): the window becomes about what its reader takes in a second, and no more, so
that neither a trickle nor a slow reader gathers memory. The growth comes out of the link's pool and
goes back when the direction is over. When the pool is empty a window stays as it is.

Offsets are absolute and limits only rise, so a grant that is lost with a link, or that comes twice
or late, does no harm: the newest one says everything.
"""

from typing import Final

from sth_protocol.errors import ChannelViolation, FlowControlViolated, Internal

MIN_WINDOW: Final = 16 * 1024
MAX_WINDOW: Final = 1024 * 1024
POOL: Final = 16 * 1024 * 1024
REPORT: Final = 128 * 1024
REPORT_FRAMES: Final = 128


class Pool:
    """Bytes by which the windows of one link may exceed their minimum, all together."""

    __slots__ = ("free", "total")

    def __init__(self, total: int = POOL) -> None:
        self.total = total
        self.free = total

    def take(self, count: int) -> bool:
        """All of `count` or nothing."""
        if count > self.free:
            return False
        self.free -= count
        return True

    def give_back(self, count: int) -> None:
        self.free += count


class ReceiveWindow:
    """What the peer may send to us. `limit`: granted; `received`, `consumed`: how far it came;
    `reported`: what the peer was told of `consumed`; `size`: bytes that may be on their way."""

    __slots__ = (
        "_consumed_since_tick",
        "_frames_since_report",
        "_pool",
        "consumed",
        "limit",
        "received",
        "reported",
        "size",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._consumed_since_tick = 0
        self._frames_since_report = 0
        self.size = MIN_WINDOW
        self.limit = MIN_WINDOW
        self.received = 0
        self.consumed = 0
        self.reported = 0

    def receive(self, offset: int, count: int) -> None:
        """Count in what came. ChannelViolation: not where the last ended; FlowControlViolated:
        more than was granted."""
        if offset != self.received:
            raise ChannelViolation(f"bytes at offset {offset}, {self.received} is the next one")
        if offset + count > self.limit:
            raise FlowControlViolated(f"bytes up to {offset + count}, {self.limit} were granted")
        self.received += count
        self._frames_since_report += 1

    def consume(self, count: int) -> bool:
        """Count `count` bytes as consumed; whether the peer should be told now."""
        if not 0 <= count <= self.received - self.consumed:
            raise Internal(f"{count} consumed of {self.received - self.consumed} bytes received")
        self.consumed += count
        self._consumed_since_tick += count
        is_large = self.consumed + self.size - self.limit >= min(self.size // 2, REPORT)
        if not is_large and self._frames_since_report < REPORT_FRAMES:
            return False
        self._grow()
        return True

    def _grow(self) -> None:
        extra = min(self.size, MAX_WINDOW - self.size)
        if extra and self._consumed_since_tick >= self.size and self._pool.take(extra):
            self.size += extra
            self._consumed_since_tick = 0

    def tick(self) -> bool:
        """Begin a new period for growth; whether the peer does not know yet what was consumed."""
        self._consumed_since_tick = 0
        return self.reported != self.consumed

    def announce(self) -> tuple[int, int]:
        """What a CREDIT is to say: the new limit, and what was consumed."""
        self.limit = max(self.limit, self.consumed + self.size)
        self.reported = self.consumed
        self._frames_since_report = 0
        return self.limit, self.consumed

    @property
    def was_announced(self) -> bool:
        """Whether more was ever announced than a channel begins with."""
        return self.limit != MIN_WINDOW or self.reported != 0

    @property
    def empty(self) -> bool:
        return self.consumed == self.received

    def close(self) -> None:
        """Give the growth back to the pool; may be called twice."""
        self._pool.give_back(self.size - MIN_WINDOW)
        self.size = MIN_WINDOW


class SendCredit:
    """What we may send to the peer. `limit`: granted; `sent`, `consumed`: how far it came."""

    __slots__ = ("consumed", "limit", "sent")

    def __init__(self) -> None:
        self.limit = MIN_WINDOW
        self.sent = 0
        self.consumed = 0

    @property
    def available(self) -> int:
        return self.limit - self.sent

    def raise_limit(self, limit: int) -> bool:
        """Take a granted limit over; whether it is news. A lower one is only late."""
        if limit <= self.limit:
            return False
        if limit - self.consumed > MAX_WINDOW:
            raise FlowControlViolated(
                f"{limit - self.consumed} bytes granted at once, a window has at most {MAX_WINDOW}"
            )
        self.limit = limit
        return True

    def note_consumed(self, consumed: int) -> bool:
        """Take over how far the peer consumed; whether it is news."""
        if consumed > self.sent:
            raise FlowControlViolated(f"{consumed} bytes consumed of {self.sent} sent")
        if consumed <= self.consumed:
            return False
        self.consumed = consumed
        return True
