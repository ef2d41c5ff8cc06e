"""A rehearsal in the zygote, which its children need not repeat.

The interpreter rewrites code that is executed for the first times, and modules fill caches: in a
child each of these writes copies a page. Measured: half a MiB less for an idle Instance.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator

from sth_sandbox.runners import frames
from sth_sandbox.runners.python.control import Control
from sth_sandbox.runners.python.entry import text_stream
from sth_sandbox.runners.python.instance import Instance
from sth_sandbox.runners.python.sockets import FrameSink, FrameSource

_TIMES = 10  # code is rewritten after eight executions
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_PROGRAM = "rehearsal"


def warm_up() -> None:
    """Runs a small Instance in this process, several times.

    Leaves nothing open and no path, module or environment changed. Must not be called while an
    event loop runs.
    """
    with _as_it_was():
        for _ in range(_TIMES):
            _rehearse_streams()
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(_rehearse())
            finally:
                loop.close()
                sys.modules.pop(_PROGRAM, None)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Undoes afterwards what loading a program changes in its process."""
    path, arguments, writes_no_bytecode = sys.path[:], sys.argv, sys.dont_write_bytecode
    directory = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.fchdir(directory)
        os.close(directory)
        sys.path[:], sys.argv, sys.dont_write_bytecode = path, arguments, writes_no_bytecode


def _rehearse_streams() -> None:
    with socket.socket(socket.AF_UNIX) as unconnected:
        for mode in ("r", "w"):
            text_stream(unconnected.fileno(), mode)


async def _rehearse() -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    try:
        (to_input, source), (_, sink), (to_control, steering), (_, log) = pairs
        start = {"type": "start", "path": _PACKAGE, "main": _PROGRAM}
        to_control.sendall(frames.pack_message(start))
        to_input.sendall(frames.pack_frame(frames.TYPE, frames.TEXT.encode()))
        to_input.sendall(frames.pack_frame(frames.DATA, b"line\n", count=1))
        to_input.sendall(frames.pack_frame(frames.END))
        control = Control(FrameSource(steering), FrameSink(steering))
        instance = Instance(
            control.read_start(),
            control=control,
            source=FrameSource(source),
            sink=FrameSink(sink),
            log=FrameSink(log),
        )
        await instance.run()
        control.close()
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
