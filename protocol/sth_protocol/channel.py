"""One channel: two directions that go through the same table, and the bytes that wait to be sent.

    waiting -> open -> finished -> done

A direction waits until the channel is accepted if it leads from the acceptor to the opener; the
other way is open from the start. FIN finishes it; DONE says that the receiver consumed everything.
A channel is over when both directions are done, or at a RESET from either side.
"""

from collections import deque
from typing import Final, Literal

from sth_protocol import frames
from sth_protocol.errors import ChannelViolation, Internal
from sth_protocol.frames import FrameType
from sth_protocol.window import Pool, ReceiveWindow, SendCredit

Stage = Literal["waiting", "open", "finished", "done"]
Step = Literal["accept", "data", "credit", "finish", "done"]

STAGES: Final[tuple[Stage, ...]] = ("waiting", "open", "finished", "done")
STEPS: Final[tuple[Step, ...]] = ("accept", "data", "credit", "finish", "done")

# (stage, step) -> next stage, the same for both ends of a direction. A pair that is not here is
# refused. Credit may come for a direction that waits: it is sent again with every new link.
TRANSITIONS: Final[dict[tuple[Stage, Step], Stage]] = {
    ("waiting", "accept"): "open",
    ("waiting", "credit"): "waiting",
    ("open", "data"): "open",
    ("open", "credit"): "open",
    ("open", "finish"): "finished",
    ("finished", "credit"): "finished",
    ("finished", "done"): "done",
}


class Channel:
    """The state of one channel at one end. `sending` and `receiving` are stages."""

    __slots__ = (
        "_data_head",
        "_more_head",
        "_pieces",
        "_position",
        "credit",
        "finishing",
        "message_begun",
        "message_coming",
        "number",
        "queued",
        "receiving",
        "sending",
        "window",
    )

    def __init__(self, number: int, *, opened_here: bool, pool: Pool) -> None:
        self.number = number
        self.sending: Stage = "open" if opened_here else "waiting"
        self.receiving: Stage = "waiting" if opened_here else "open"
        self.window = ReceiveWindow(pool)
        self.credit = SendCredit()
        self.queued = 0
        self.finishing = False
        # A message of which the end was not yet sent (by our user), or has not yet come.
        self.message_begun = False
        self.message_coming = False
        self._pieces: deque[tuple[bytes | memoryview, bool]] = deque()
        self._position = 0
        self._data_head = frames.data_head(FrameType.DATA, number)
        self._more_head = frames.data_head(FrameType.MORE, number)

    def check_own(self, stage: Stage, step: Step) -> Stage:
        """The next stage of a step of our own user; Internal if it is not allowed."""
        following = TRANSITIONS.get((stage, step))
        if following is None:
            raise Internal(f"channel {self.number}: {step} in a direction that is {stage}")
        return following

    def check_peer(self, stage: Stage, step: Step) -> Stage:
        """The next stage of a step of the peer; ChannelViolation if it is not allowed."""
        following = TRANSITIONS.get((stage, step))
        if following is None:
            raise ChannelViolation(f"channel {self.number}: {step} in a direction that is {stage}")
        return following

    def receive(self, offset: int, data: bytes, *, more: bool) -> None:
        """Check and count in a DATA or MORE frame."""
        if self.receiving != "open":
            self.check_peer(self.receiving, "data")
        if not data and (more or not self.message_coming):
            raise ChannelViolation(f"channel {self.number}: a frame without a byte")
        self.window.receive(offset, len(data))
        self.message_coming = more

    def enqueue(self, data: bytes | memoryview, *, more: bool) -> None:
        """Let `data` wait to be sent. Internal after `finish`, and before `accept`."""
        if self.finishing or self.sending != "open":
            stage = "finished" if self.finishing else self.sending
            raise Internal(f"channel {self.number}: data in a direction that is {stage}")
        if not data and (more or not self.message_begun):
            return
        self._pieces.append((data, more))
        self.queued += len(data)
        self.message_begun = more

    def finish(self) -> None:
        """Let a FIN follow what waits. Internal before the channel is accepted."""
        self.check_own(self.sending, "finish")
        self.finishing = True

    @property
    def sendable(self) -> int:
        """Credit less what waits, in bytes; 0 where nothing may be sent."""
        if self.finishing or self.sending != "open":
            return 0
        return self.credit.available - self.queued

    @property
    def ready(self) -> bool:
        """Whether `next_frame` has something to give."""
        if self._pieces:
            return self.credit.limit > self.credit.sent or not self._pieces[0][0]
        return self.finishing and self.sending == "open"

    def next_frame(self) -> bytes:
        """The next frame to send, as credit allows; only when `ready`."""
        credit = self.credit
        if not self._pieces:
            self.sending = self.check_own(self.sending, "finish")
            return frames.encode(FrameType.FIN, self.number, credit.sent)
        data, more = self._pieces[0]
        offset = credit.sent
        length = len(data) - self._position
        count = min(length, credit.limit - offset, frames.DATA_CUT)
        if count == length:
            self._pieces.popleft()
            piece = memoryview(data)[self._position :] if self._position else data
            self._position = 0
        else:
            more = True
            piece = memoryview(data)[self._position : self._position + count]
            self._position += count
        credit.sent += count
        self.queued -= count
        head = self._more_head if more else self._data_head
        return frames.encode_data(head, offset, piece)

    def close(self) -> None:
        """Drop what waits, and give the window back."""
        self._pieces.clear()
        self._position = 0
        self.queued = 0
        self.finishing = False
        self.window.close()
