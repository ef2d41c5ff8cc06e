"""A rehearsal in the zygote, which its children need not repeat.

The interpreter rewrites code that is executed for the first times, and modules fill caches: in a
child each of these writes copies a page. Measured: half a MiB less for an idle Instance.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

from sth_sandbox.runners import frames
from sth_sandbox.runners.python.control import Control
from sth_sandbox.runners.python.instance import Instance
from sth_sandbox.runners.python.program import Program
from sth_sandbox.runners.python.sockets import FrameSink, FrameSource

_TIMES = 10  # code is rewritten after eight executions


def warm_up() -> None:
    """Runs a small Instance of no program in this process, several times.

    Leaves nothing open and no path, module or environment changed. Must not be called while an
    event loop runs.
    """
    loop = asyncio.new_event_loop()
    try:
        for _ in range(_TIMES):
            loop.run_until_complete(_rehearse())
    finally:
        loop.close()


async def _rehearse() -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    try:
        (to_input, source), (_, sink), (to_control, steering), (_, log) = pairs
        to_control.sendall(frames.pack_message({"type": "start", "path": "/", "main": "none"}))
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
            loader=lambda package, main: Program(_pass_on),
        )
        await instance.run()
        control.close()
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


async def _pass_on(context: Any, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        context.logger.debug("line")
        yield line
