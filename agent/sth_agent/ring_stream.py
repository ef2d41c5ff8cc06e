"""stdout, stderr and log of an Instance: always drained, so that the program never waits for a
reader, into a ring from which whoever asks is served."""

import asyncio
import os

from sth_agent.channels import Channel, ChannelUser
from sth_agent.ring import Ring
from sth_protocol.errors import SthError
from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import FrameError, FrameReader

CAPACITY = 1024 * 1024
READ_BYTES = 64 * 1024
# One stream's turn: a program that prints without end must not keep the others waiting.
TURN_BYTES = 256 * 1024


class RingStream:
    """`descriptor` becomes the stream's own. `framed`: it is the log's socket, whose frames hold
    whole lines; otherwise a pipe. `ended` resolves when its last byte is in the ring."""

    def __init__(self, descriptor: int, *, framed: bool, content_type: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.ring = Ring(CAPACITY, whole_lines=framed)
        self.content_type = content_type
        self._descriptor = descriptor
        self._frames = FrameReader() if framed else None
        self._readers: set[RingReader] = set()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def serve(self, channel: Channel) -> None:
        """Give what is held, and all that follows, to this channel."""
        reader = RingReader(self, channel)
        self._readers.add(reader)
        channel.accept({"offset": self.ring.start, "content_type": self.content_type})
        reader.pump()

    def add_line(self, line: bytes) -> None:
        """A line of ours among the program's."""
        self.ring.append(line)
        self._pump_all()

    def leave(self, reader: "RingReader") -> None:
        """A reader has gone; what all have consumed is forgotten."""
        self._readers.discard(reader)
        self.settle(reader.consumed)

    def settle(self, consumed: int) -> None:
        """A reader has consumed up to this offset."""
        self.ring.forget(min((each.consumed for each in self._readers), default=consumed))

    def close(self) -> None:
        """Read no more."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(None)
        self._pump_all()

    def _readable(self) -> None:
        turn = 0
        while turn < TURN_BYTES:
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            turn += len(data)
            if not self._append(data):
                self.close()
                return
        self._pump_all()

    def _append(self, data: bytes) -> bool:
        if self._frames is None:
            self.ring.append(data)
            return True
        try:
            for header, payload in self._frames.feed(data):
                if header.type == frames.DATA:
                    self.ring.append(payload)
        except FrameError:
            return False
        return True

    def _pump_all(self) -> None:
        for reader in tuple(self._readers):
            reader.pump()


class RingReader(ChannelUser):
    """One channel's place in a ring."""

    def __init__(self, stream: RingStream, channel: Channel) -> None:
        self._stream = stream
        self._channel = channel
        # Pairs of how many bytes were sent before, and the offset in the stream that follows: a
        # reader that is overtaken by the ring jumps ahead.
        self._jumps: list[tuple[int, int]] = [(0, stream.ring.start)]
        self._sent = 0
        self._position = stream.ring.start
        self.consumed = stream.ring.start
        channel.user = self

    def pump(self) -> None:
        """Send as much as there is credit for."""
        ring = self._stream.ring
        while (room := self._channel.sendable) > 0:
            begin, data = ring.read(self._position, min(room, READ_BYTES))
            if not data:
                break
            if begin != self._position:
                self._jumps.append((self._sent, begin))
            self._channel.send(data)
            self._sent += len(data)
            self._position = begin + len(data)
        if self._position >= ring.end and self._stream.ended.done():
            self._channel.finish()

    def credited(self, consumed: int) -> None:
        self._note(consumed)
        self._stream.settle(self.consumed)
        self.pump()

    def reset(self, error: SthError, consumed: int | None) -> None:
        if consumed is not None:
            self._note(consumed)
        self._stream.leave(self)

    def _note(self, consumed: int) -> None:
        while len(self._jumps) > 1 and self._jumps[1][0] <= consumed:
            self._jumps.pop(0)
        before, offset = self._jumps[0]
        self.consumed = offset + consumed - before
