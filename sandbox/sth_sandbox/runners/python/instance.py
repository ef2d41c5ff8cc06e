"""One run of a program: loaded, called, its output sent, ended."""

import asyncio
import contextlib
import inspect
import os
import select
from typing import Any

from sth.declaration import call
from sth.results import as_items
from sth_sandbox.runners import frames
from sth_sandbox.runners.python import tracebacks
from sth_sandbox.runners.python.collecting import collect
from sth_sandbox.runners.python.context import RunnerContext
from sth_sandbox.runners.python.control import Control, Message
from sth_sandbox.runners.python.ending import Ending, Interrupted
from sth_sandbox.runners.python.logs import program_logger
from sth_sandbox.runners.python.program import BadEntryPoint, Program, load
from sth_sandbox.runners.python.reading import Input
from sth_sandbox.runners.python.sockets import FrameSink, FrameSource
from sth_sandbox.runners.python.turns import Turns, calling_at_each_wait
from sth_sandbox.runners.python.writing import Output

_UNWIND_SECONDS = 5.0  # what a cancelled program gets when nothing else says


class Instance:
    """Runs what a start message says. `run` gives the exit code."""

    def __init__(
        self,
        start: Message,
        *,
        control: Control,
        source: FrameSource,
        sink: FrameSink,
        log: FrameSink,
    ) -> None:
        self._package = os.path.realpath(str(start.get("path", "")))
        self._start = start
        self._control = control
        self._source = source
        self._turns = Turns()
        self._output = Output(sink)
        self._input = Input(
            source,
            turns=self._turns,
            wait_in_place=self._wait_in_place,
            report=lambda offset, number: control.send("consumed", offset=offset, sequence=number),
        )
        self._ending = Ending()
        self._unwind_seconds = _UNWIND_SECONDS
        self._context = RunnerContext(
            instance_id=str(start.get("instance", "")),
            config=dict(start.get("config") or {}),
            logger=program_logger(log),
            control=control,
            ending=self._ending,
        )
        self._stopping: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """The program from loading to the last byte of its output."""
        self._control.listen(
            {"stop": self._on_stop, "kill": lambda message: self._kill(), "event": self._on_event},
            resynchronise=self._on_resync,
            gone=self._kill,
        )
        program = self._load()
        if program is not None and self._is_announced(program):
            await self._execute(program)
        return await self._finish()

    def _load(self) -> Program | None:
        try:
            return load(self._package, self._start.get("main", ""))
        except BadEntryPoint as error:
            self._ending.decide(frames.EXIT_BAD_ENTRYPOINT, error)
        except SystemExit as error:
            self._ending.decide(frames.EXIT_FAILED_ON_START, f"exit({error.code}) while loading")
        except BaseException as error:
            self._ending.decide(frames.EXIT_FAILED_ON_START, error)
        return None

    def _is_announced(self, program: Program) -> bool:
        try:
            self._announce(program)
        except (TypeError, ValueError, RecursionError) as error:
            self._ending.decide(
                frames.EXIT_BAD_ENTRYPOINT,
                BadEntryPoint(f"what it requires and provides cannot be told: {error}"),
            )
            return False
        return True

    def _announce(self, program: Program) -> None:
        self._control.send(
            "ready",
            requires=program.requires,
            provides=program.provides,
            content_type=program.content_type,
        )

    async def _execute(self, program: Program) -> None:
        """Runs the program until it is done or the Instance is to end."""
        work = asyncio.ensure_future(self._guarded(program))
        decided = asyncio.ensure_future(self._ending.decided())
        await asyncio.wait({work, decided}, return_when=asyncio.FIRST_COMPLETED)
        decided.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=self._unwind_seconds)

    async def _guarded(self, program: Program) -> None:
        try:
            await calling_at_each_wait(self._call(program), self._output.flush)
            self._ending.complete()
        except SystemExit as error:
            self._exit_as_asked(error.code)
        except Interrupted:
            # The program waited for input in place, and could not let its stop handlers run.
            if self._stopping is not None:
                await self._stopping
            self._ending.decide(frames.EXIT_STOPPED)
        except asyncio.CancelledError:
            # Cancelled by this runner: the reason is decided. By the program itself: a failure.
            self._ending.decide(frames.EXIT_FAILED, "the program cancelled itself")
        except BaseException as error:
            self._ending.decide(frames.EXIT_FAILED, error)

    async def _call(self, program: Program) -> None:
        arguments = list(self._start.get("args") or ())
        result = call(program.function, self._context, self._input, arguments, self._context.config)
        if inspect.isawaitable(result):
            result = await result
        said = program.with_result(result)
        if said != program:
            self._announce(said)
        if isinstance(result, (int, float)) and said.content_type == frames.TEXT:
            result = str(result)
        self._output.declare(said.content_type, said.provides)
        await collect(as_items(result), self._output, turns=self._turns)

    def _exit_as_asked(self, code: object) -> None:
        """As the interpreter treats SystemExit: nothing is 0, a number itself, a text 1."""
        if code is None or code == 0:
            self._ending.complete()
        elif isinstance(code, int):
            self._ending.decide(code & 0xFF, f"the program ended itself with exit code {code}")
        else:
            self._ending.decide(1, str(code))

    async def _finish(self) -> int:
        """Sends what is left; the exit code."""
        code = self._ending.code
        assert code is not None
        try:
            self._output.end()
        except Exception as error:
            # The last items did not fit their content type, which was not known until now.
            self._output.items.clear()
            self._output.end()
            if code == frames.EXIT_COMPLETED:
                code = frames.EXIT_FAILED
                self._ending.error = error
        if self._ending.error is not None:
            self._tell_error(code, self._ending.error)
        self._input.report_position()
        if code == frames.EXIT_STOPPED:
            self._control.send("stopped")
        await self._ending.unless_killed(self._drained())
        return self._ending.code if self._ending.code == frames.EXIT_KILLED else code

    async def _drained(self) -> None:
        await self._output.sink.drained()
        await self._control.drained()

    def _tell_error(self, code: int, error: BaseException | str) -> None:
        described: dict[str, Any] | None = None
        if isinstance(error, BaseException):
            with contextlib.suppress(Exception):
                # The program may have closed or replaced its standard error.
                tracebacks.print_error(error)
            described = tracebacks.describe(error, self._package)
            message = f"{described['type']}: {described['message']}"
            if isinstance(error, BadEntryPoint):
                message = described["message"]
        else:
            message = error
        self._control.send("error", exit_code=code, message=message, traceback=described)

    def _on_stop(self, message: Message) -> None:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(message))

    async def _stop(self, message: Message) -> None:
        seconds = float(message.get("timeout_ms", 0)) / 1000
        can_keep_alive = bool(message.get("can_keepalive"))
        self._context.kept_alive = False
        await self._context.run_stop_handlers(seconds, can_keep_alive)
        if can_keep_alive and self._context.kept_alive:
            self._stopping = None  # it goes on, and may be stopped again
            return
        self._unwind_seconds = max(seconds, 0.0)
        self._ending.decide(frames.EXIT_STOPPED)

    def _kill(self) -> None:
        self._unwind_seconds = 0.0
        self._ending.kill()

    def _on_event(self, message: Message) -> None:
        self._context.deliver(str(message.get("name", "")), message.get("message"))

    def _on_resync(self, token: bytes) -> None:
        self._control.send("resynced", token=token.hex(), **self._input.resynchronise())

    def _wait_in_place(self, seconds: float | None) -> bool:
        """Waits for input in a program that does not use the event loop, and sees to the rest."""
        self._output.flush()
        waiting = select.poll()
        waiting.register(self._source.socket, select.POLLIN)
        waiting.register(self._control.descriptor, select.POLLIN)
        sink = self._output.sink
        while True:
            if sink.waiting:
                waiting.register(sink.socket, select.POLLOUT)
            ready = {descriptor for descriptor, _ in waiting.poll(seconds and seconds * 1000)}
            if sink.socket.fileno() in ready:
                sink.push()
                if not sink.waiting:
                    waiting.unregister(sink.socket)
            if self._control.descriptor in ready:
                self._control.dispatch()
            if self._ending.code is not None or self._stopping is not None:
                raise Interrupted
            if self._source.socket.fileno() in ready:
                return True
            if not ready:
                return False
