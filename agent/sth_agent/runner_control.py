"""The control socket of one Instance: orders to its runner, news from it."""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from sth_agent.stream_writer import StreamWriter
from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import FrameError, FrameReader

READ_BYTES = 64 * 1024

Json = dict[str, Any]


class RunnerControl:
    """`heard` is called with every message; `ended` resolves when no more can come, and `silent` is
    called if that is the runner's doing.

    The program shares the runner's process: what it sends is checked, and a broken frame only ends
    the conversation.
    """

    def __init__(
        self, descriptor: int, *, heard: Callable[[Json], None], silent: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._heard = heard
        self._silent = silent
        self._reader = FrameReader()
        self._descriptor = os.dup(descriptor)
        self._writer = StreamWriter(descriptor, failed=_ignore)
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._readable)

    def send(self, kind: str, **fields: object) -> None:
        """Tell the runner something."""
        self._writer.write(frames.pack_message({"type": kind, **fields}))

    def resynchronise(self) -> None:
        """Ask the runner where its input stands: another agent has written it before."""
        self._writer.write(frames.pack_frame(frames.RESYNC, os.urandom(16)))

    def close(self) -> None:
        self._writer.close()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
            messages = [_message(each) for each in self._reader.feed(data)]
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data, messages = b"", []
        for message in messages:
            if message is not None:
                self._heard(message)
        if not data:
            self.close()
            self._silent()


def _message(frame: frames.Frame) -> Json | None:
    if frame.header.type != frames.MESSAGE:
        return None
    try:
        value = json.loads(frame.payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _ignore() -> None:
    """That the runner is gone is told by the spawner."""
