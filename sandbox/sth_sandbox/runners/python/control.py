"""The control socket: orders from the agent, news to it."""

import asyncio
import json
import select
from collections.abc import Callable
from typing import Any

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Frame, FrameError
from sth_sandbox.runners.python.sockets import FrameSink, FrameSource

Message = dict[str, Any]
Handler = Callable[[Message], None]

_CAPACITY = 16 * 1024  # grows with the largest message


class Control:
    """Sends messages, and calls a handler for each that comes."""

    def __init__(self, source: FrameSource, sink: FrameSink) -> None:
        self._source = source
        self._sink = sink
        self._early: list[Frame] = []
        self._handlers: dict[str, Handler] = {}
        self._resynchronise: Callable[[bytes], None] = lambda token: None
        self._gone: Callable[[], None] = lambda: None

    @property
    def descriptor(self) -> int:
        """What to wait on for reading."""
        return self._source.socket.fileno()

    def read_start(self) -> Message:
        """Waits for the first message, which says what to run."""
        readable = select.poll()
        readable.register(self._source.socket, select.POLLIN)
        while not self._early:
            readable.poll()
            self._early = self._source.receive()
        header, payload = self._early.pop(0)
        message = json.loads(payload) if header.type == frames.MESSAGE else None
        if not isinstance(message, dict) or message.get("type") != "start":
            raise FrameError("the first thing on the control socket must be a start message")
        return message

    def listen(
        self,
        handlers: dict[str, Handler],
        *,
        resynchronise: Callable[[bytes], None],
        gone: Callable[[], None],
    ) -> None:
        """Calls `handlers` by the type of a message from now on, in the running event loop.

        `gone` is called when the other side has closed: nobody is there to run for.
        """
        self._handlers = handlers
        self._resynchronise = resynchronise
        self._gone = gone
        loop = asyncio.get_running_loop()
        loop.add_reader(self._source.socket, self.dispatch)
        loop.call_soon(self._dispatch_early)

    def close(self) -> None:
        """Stops listening."""
        asyncio.get_running_loop().remove_reader(self._source.socket)

    def dispatch(self) -> None:
        """Handles what there is. For those who wait without the event loop, too."""
        try:
            received = self._source.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._source.socket)
            self._gone()
            return
        for frame in received:
            self._handle(frame)

    def send(self, kind: str, **fields: Any) -> None:
        """Sends a message. ValueError if it is larger than a frame."""
        self._sink.send(frames.pack_message({"type": kind, **fields}))

    async def drained(self) -> None:
        """Waits until everything is in the socket."""
        await self._sink.drained()

    def _dispatch_early(self) -> None:
        while self._early:
            self._handle(self._early.pop(0))

    def _handle(self, frame: Frame) -> None:
        header, payload = frame
        if header.type == frames.RESYNC:
            self._resynchronise(payload)
        elif header.type == frames.MESSAGE:
            message = json.loads(payload)
            handler = self._handlers.get(message.get("type"))
            if handler is not None:  # a newer agent may know more
                handler(message)
