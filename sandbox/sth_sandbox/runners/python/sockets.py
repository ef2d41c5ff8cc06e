"""Frames over the non-blocking runner sockets: whole ones in, batches out."""

import asyncio
import mmap
import select
import socket
import threading
from collections import deque

from sth_sandbox.runners.frames import HEADER_BYTES, Frame, unpack_header, walk

SEND_BUFFER_BYTES = 1 << 20
_MOST_PARTS = 512  # of one sendmsg; the kernel refuses more than 1024


class FrameSource:
    """Reads whole frames from a socket."""

    def __init__(self, source: socket.socket, *, capacity: int = 256 * 1024) -> None:
        source.setblocking(False)
        self.socket = source
        self._make_buffer(capacity)
        self._start = 0
        self._end = 0

    def receive(self) -> list[Frame]:
        """The frames that have become whole, maybe none.

        BlockingIOError if nothing is there, EOFError if the other side is gone, FrameError if the
        bytes are no frames.
        """
        count = self.socket.recv_into(self._view[self._end :])
        if not count:
            raise EOFError("the other side of the socket is gone")
        self._end += count
        frames: list[Frame] = []
        view = self._view
        for header, at in walk(view[: self._end], self._start):
            self._start = at + header.length
            frames.append(Frame(header, bytes(view[at : self._start])))
        self._make_room()
        return frames

    def drop_incomplete(self) -> None:
        """Forgets a frame of which only a part has come."""
        self._start = self._end = 0

    def _make_room(self) -> None:
        held = self._end - self._start
        if not held:
            self._start = self._end = 0
            return
        needed = HEADER_BYTES
        if held >= HEADER_BYTES:
            needed += unpack_header(self._view, self._start).length
        if self._start + needed <= len(self._buffer):
            return
        rest = bytes(self._view[self._start : self._end])
        if needed > len(self._buffer):
            self._make_buffer(needed)
        self._view[:held] = rest
        self._start, self._end = 0, held

    def _make_buffer(self, size: int) -> None:
        """Anonymous memory: what no byte has been received into costs an idle Instance nothing."""
        self._buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._buffer)


class FrameSink:
    """Writes to a socket at once, and keeps what it does not take.

    Frames of one `send` are never mixed with those of another, whatever the thread.
    """

    def __init__(self, sink: socket.socket) -> None:
        sink.setblocking(False)
        self.socket = sink
        self._waiting: deque[bytes | memoryview] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether the socket has not taken everything yet."""
        return bool(self._waiting)

    def send(self, *parts: bytes | memoryview) -> None:
        """Sends parts that together are whole frames."""
        with self._lock:
            self._waiting.extend(parts)
            self._push()

    def push(self) -> None:
        """Tries again to send what is kept."""
        with self._lock:
            self._push()

    def _push(self) -> None:
        waiting = self._waiting
        while waiting:
            parts = [waiting[n] for n in range(min(len(waiting), _MOST_PARTS))]
            try:
                sent = self.socket.sendmsg(parts)
            except BlockingIOError:
                return
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.popleft())
            if sent:
                waiting[0] = memoryview(waiting[0])[sent:]

    async def drained(self) -> None:
        """Waits until the socket has taken everything."""
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        empty: asyncio.Future[None] = loop.create_future()

        def writable() -> None:
            try:
                self.push()
            except OSError as error:
                if not empty.done():
                    empty.set_exception(error)
                return
            if not self._waiting and not empty.done():
                empty.set_result(None)

        loop.add_writer(self.socket, writable)
        try:
            await empty
        finally:
            loop.remove_writer(self.socket)

    def drain(self) -> None:
        """As `drained`, without an event loop."""
        while self._waiting:
            writable = select.poll()
            writable.register(self.socket, select.POLLOUT)
            writable.poll()
            self.push()


def widen_send_buffer(sink: socket.socket) -> None:
    """Lets a socket hold SEND_BUFFER_BYTES where the machine allows it; never narrows it.

    The spawner may have set more than an ordinary process can.
    """
    if sink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < SEND_BUFFER_BYTES:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
