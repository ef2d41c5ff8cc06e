"""From a fresh process to its exit: descriptors, standard streams, event loop."""

import asyncio
import atexit
import gc
import logging
import os
import socket
import sys
import traceback
from typing import NoReturn, TextIO, cast

from sth_sandbox.runners import frames
from sth_sandbox.runners.python.control import Control
from sth_sandbox.runners.python.instance import Instance
from sth_sandbox.runners.python.sockets import FrameSink, FrameSource, widen_send_buffer

_CONTROL_CAPACITY = 16 * 1024  # grows with the largest message


def run_instance() -> NoReturn:
    """Runs the Instance that the control socket says, and ends the process with its exit code.

    The descriptors of wire.md section 4 are open and nothing of the program is loaded. To be
    called once, in a child of the zygote or in an interpreter started for it.
    """
    code = frames.EXIT_FAILED
    try:
        # What the zygote has loaded stays shared with it: the collector need not touch it.
        gc.freeze()
        _open_standard_streams()
        code = _run()
    except (EOFError, ConnectionError):
        code = frames.EXIT_KILLED  # nobody is there to run for
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _run() -> int:
    descriptors = (
        frames.INPUT_DESCRIPTOR,
        frames.OUTPUT_DESCRIPTOR,
        frames.CONTROL_DESCRIPTOR,
        frames.LOG_DESCRIPTOR,
    )
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    source, sink, steering, log = (socket.socket(fileno=each) for each in descriptors)
    for each in (sink, log):
        widen_send_buffer(each)
    control = Control(FrameSource(steering, capacity=_CONTROL_CAPACITY), FrameSink(steering))
    start = control.read_start()

    async def run() -> int:
        instance = Instance(
            start,
            control=control,
            source=FrameSource(source),
            sink=FrameSink(sink),
            log=FrameSink(log),
        )
        return await instance.run()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(run())


def _open_standard_streams() -> None:
    """The program's own 0, 1 and 2: the objects that a forked child has belong to its parent."""
    sys.stdin = text_stream(0, "r")
    sys.stdout = text_stream(1, "w")
    sys.stderr = text_stream(2, "w")


def text_stream(descriptor: int, mode: str) -> TextIO:
    """A stream on a descriptor that stays open. A line that is written leaves at once."""
    stream = open(  # noqa: SIM115 - it lives as long as the process
        descriptor, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    return cast(TextIO, stream)


def _leave(code: int) -> NoReturn:
    """Ends the process, without waiting for threads that the program has started."""
    try:
        atexit._run_exitfuncs()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        pass  # a stream that nobody reads any more changes nothing
    finally:
        os._exit(code)
