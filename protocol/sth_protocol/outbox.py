"""What waits to be sent, and the order in which it goes.

First what is not numbered (ACK, PONG, PING, CREDIT: small, and late it is worth little), then what
the last link may have lost, then control frames, then the data of the channels in turn, 64 KiB
each. Frames are gathered into messages of about 64 KiB; nothing waits for a message to fill.
"""

from collections import OrderedDict, deque
from typing import Final

from sth_protocol import frames
from sth_protocol.channel import Channel
from sth_protocol.frames import FrameType
from sth_protocol.numbering import Receipts, SendLog

QUANTUM: Final = 64 * 1024
# A DATA frame of 64 KiB and the small frames that ride along fit in.
MESSAGE_TARGET: Final = 66 * 1024
# A peer that asks faster than it reads gets the newest answers only: any of them is a sign of life.
MAX_PONGS: Final = 16


class Outbox:
    """`log`: numbered frames under way; `receipts`: what is to be acknowledged; `control_bytes`:
    size of the control frames that wait. `unacknowledged`: bytes in the log beyond which nothing
    new is sent."""

    __slots__ = (
        "_control",
        "_credit_due",
        "_ping",
        "_pongs",
        "_ready",
        "_unacknowledged",
        "control_bytes",
        "log",
        "receipts",
    )

    def __init__(self, *, unacknowledged: int) -> None:
        self.log = SendLog()
        self.receipts = Receipts()
        self.control_bytes = 0
        self._unacknowledged = unacknowledged
        self._control: deque[bytes] = deque()
        self._ready: OrderedDict[int, Channel] = OrderedDict()
        self._credit_due: dict[int, Channel] = {}
        self._pongs: deque[int] = deque(maxlen=MAX_PONGS)
        self._ping: int | None = None

    def begin_link(self) -> None:
        """Forget what mattered to the last link only; the handshake acknowledged what came."""
        self._pongs.clear()
        self._ping = None
        self.receipts.acknowledge()

    def add_control(self, frame: bytes) -> None:
        """A numbered frame that goes before all data."""
        self._control.append(frame)
        self.control_bytes += len(frame)

    def add_credit(self, channel: Channel) -> None:
        """The peer should be told of the channel's window; the numbers are those of the sending."""
        self._credit_due[channel.number] = channel

    def add_data(self, channel: Channel) -> None:
        """The channel has data, a FIN or credit that it had not before."""
        if channel.ready:
            self._ready[channel.number] = channel

    def add_ping(self, token: int) -> None:
        self._ping = token

    def add_pong(self, token: int) -> None:
        self._pongs.append(token)

    def drop_credit(self, channel: Channel) -> None:
        """The receiving direction is done."""
        self._credit_due.pop(channel.number, None)

    def drop(self, channel: Channel) -> None:
        """The channel is over; its control frames and what is in the log stay."""
        self._credit_due.pop(channel.number, None)
        self._ready.pop(channel.number, None)

    @property
    def waiting(self) -> bool:
        """Whether `take` has something to give."""
        if self.receipts.due or self._credit_due or self._pongs or self._ping is not None:
            return True
        return self.log.rewound or (bool(self._control or self._ready) and not self._full)

    @property
    def _full(self) -> bool:
        return self.log.cost >= self._unacknowledged

    def take(self, max_bytes: int) -> list[bytes]:
        """The next messages, of about `max_bytes` together."""
        if not self.waiting:
            return []
        batch = _Batch()
        self._take_unnumbered(batch)
        log = self.log
        while log.rewound and batch.total < max_bytes:
            batch.add(log.next_again())
        if not log.rewound:
            self._take_control(batch, max_bytes)
            # Takes nothing while control frames are left: it has the same limits.
            self._take_data(batch, max_bytes)
        return batch.finish()

    def _take_unnumbered(self, batch: "_Batch") -> None:
        if self.receipts.outstanding:
            batch.add(frames.encode(FrameType.ACK, 0, self.receipts.acknowledge()))
        while self._pongs:
            batch.add(frames.encode(FrameType.PONG, 0, self._pongs.popleft()))
        if self._ping is not None:
            batch.add(frames.encode(FrameType.PING, 0, self._ping))
            self._ping = None
        for number, channel in self._credit_due.items():
            limit, consumed = channel.window.announce()
            batch.add(frames.encode(FrameType.CREDIT, number, limit, consumed))
        self._credit_due.clear()

    def _take_control(self, batch: "_Batch", max_bytes: int) -> None:
        while self._control and batch.total < max_bytes and not self._full:
            frame = self._control.popleft()
            self.control_bytes -= len(frame)
            self.log.append(frame)
            batch.add(frame)

    def _take_data(self, batch: "_Batch", max_bytes: int) -> None:
        ready, log = self._ready, self.log
        while ready and batch.total < max_bytes and not self._full:
            number, channel = ready.popitem(last=False)
            end = batch.total + QUANTUM
            while channel.ready and batch.total < end:
                frame = channel.next_frame()
                log.append(frame)
                batch.add(frame)
            if channel.ready:
                ready[number] = channel


class _Batch:
    """Frames gathered into messages. `total`: bytes so far."""

    __slots__ = ("_messages", "_parts", "_size", "total")

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self.total = 0

    def add(self, frame: bytes) -> None:
        size = len(frame)
        if self._parts and self._size + size > MESSAGE_TARGET:
            self._close_message()
        self._parts.append(frame)
        self._size += size
        self.total += size

    def finish(self) -> list[bytes]:
        """All messages."""
        if self._parts:
            self._close_message()
        return self._messages

    def _close_message(self) -> None:
        # One frame alone is passed on as it is: join does not copy it.
        self._messages.append(b"".join(self._parts))
        self._parts = []
        self._size = 0
