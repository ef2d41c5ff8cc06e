"""The Hub on the broker's own machine: a process of its own, joined through the same door as any
other. It outlives the broker unless it is told to stop."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from sth_broker.private_files import write_private
from sth_protocol.errors import Conflict, Forbidden, Misconfigured
from sth_protocol.ids import LOCAL_HUB

logger = logging.getLogger(__name__)

JOIN_SECONDS = 60.0
STOP_GRACE_SECONDS = 10
RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
# How often to look after an agent that an earlier broker started.
LOOK_SECONDS = 15.0
# Ends that a new start would not change: told to stop, refused, cannot run here.
_FINAL_EXITS = frozenset({0, Forbidden.exit_code, Misconfigured.exit_code})

MakeToken = Callable[[], Awaitable[str]]


class LocalHub:
    """`directory`: the agent's state; `log`: what it says; `make_token`: a join token for it;
    `is_online`: whether it is connected."""

    def __init__(
        self,
        *,
        directory: Path,
        log: Path,
        make_token: MakeToken,
        is_online: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self.log = log
        self._make_token = make_token
        self._is_online = is_online
        self._joined = directory.with_name("hub.joined")
        self._supervisor: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Join if it never did, and run. Misconfigured if it cannot join."""
        if not self._joined.exists():
            await self._join()
        self._process = self._launch()
        self._supervisor = asyncio.create_task(self._supervise(), name="local hub")

    async def leave_running(self) -> None:
        """Let go of it: the next broker finds it as it is."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor

    async def stop(self) -> None:
        """End the agent, its spawner and its Instances."""
        await self.leave_running()
        process = await asyncio.create_subprocess_exec(
            *self._command("stop", "--grace", f"{STOP_GRACE_SECONDS}s"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(2 * STOP_GRACE_SECONDS):
                _, complaint = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            logger.warning("the built-in Hub did not stop in time")
            return
        if process.returncode:
            logger.warning("the built-in Hub did not stop: %s", _last_line(complaint))
        if self._process is not None:
            await self._ended(self._process)

    async def _join(self) -> None:
        token_file = self._directory.with_name("hub.token")
        await asyncio.to_thread(write_private, token_file, (await self._make_token()).encode())
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command("join", "--token-file", str(token_file), "--name", LOCAL_HUB),
                "--no-service",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(JOIN_SECONDS):
                    _, complaint = await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()
                complaint = b"it took too long"
        finally:
            token_file.unlink(missing_ok=True)
        if process.returncode:
            raise Misconfigured(
                f"the built-in Hub cannot join: {_last_line(complaint)}",
                hint="start the broker without it: --no-local-hub",
            )
        self._joined.touch()

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command("run"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the broker's terminal is not for it, nor is the end of the broker.
                start_new_session=True,
            )

    async def _supervise(self) -> None:
        """Start it again when it dies."""
        failures = 0
        while self._process is not None:
            code = await self._ended(self._process)
            if code in _FINAL_EXITS:
                logger.info("the built-in Hub ended with %d", code)
                return
            if code == Conflict.exit_code:
                logger.info("the built-in Hub runs since an earlier broker")
                await self._until_offline()
            else:
                delay = RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)]
                failures += 1
                logger.warning("the built-in Hub ended with %d; again in %.0f s", code, delay)
                await asyncio.sleep(delay)
            self._process = self._launch()

    async def _until_offline(self) -> None:
        """Return when an agent that is no child of ours may be gone; starting another one shows."""
        await asyncio.sleep(LOOK_SECONDS)
        while self._is_online():  # noqa: ASYNC110 - nothing is in a hurry here
            await asyncio.sleep(LOOK_SECONDS)

    async def _ended(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of a child. asyncio's own processes are killed when their loop closes."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return process.wait()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return process.wait()

    def _command(self, *arguments: str) -> list[str]:
        base = [sys.executable, "-m", "sth_agent"]
        return [*base, *arguments, "--state", str(self._directory)]


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
