"""The asyncio face of the spawner's socket: requests with their descriptors, and its events."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sth_protocol.errors import Misconfigured, SthError, StreamFailed, TimedOut, from_wire
from sth_sandbox import packets

logger = logging.getLogger(__name__)

VERSION = 1
REQUEST_TIMEOUT = 60.0
START_TIMEOUT = 60.0
UNPACK_TIMEOUT = 300.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The agent's ends of an Instance's streams, in the order of the wire."""

    input: int
    output: int
    control: int
    log: int
    stdin: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: one of `code` and `signal`; `reason` in the spawner's words."""

    code: int | None
    signal: int | None
    reason: str


def exit_from(fields: object) -> Exit | None:
    """The exit in an answer or event; None if there is none."""
    if not isinstance(fields, dict):
        return None
    code, number = fields.get("code"), fields.get("signal")
    return Exit(
        code if isinstance(code, int) else None,
        number if isinstance(number, int) else None,
        str(fields.get("reason") or ""),
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """An Instance as the spawner lists it."""

    instance: str
    pid: int
    running: bool
    exit: Exit | None


@dataclass(frozen=True, slots=True)
class Started:
    """A process with its streams. `path`: of the package as the program sees it; `sandbox`: what
    holds for this Instance; `stdin_closed`: its descriptor leads nowhere."""

    pid: int
    path: str
    sandbox: Json
    stdin_closed: bool
    streams: Descriptors


@dataclass(frozen=True, slots=True)
class Spawner:
    """The process that answers. `report`: what this machine enforces, mechanism -> {state, reason,
    fix}."""

    pid: int
    report: Json


class SpawnerGone(StreamFailed):
    """The spawner has ended, and all Instances with it."""


def ensure_spawner(directory: Path, *, allow_unsandboxed: bool = False) -> socket.socket:
    """A connection to the spawner of this directory, which is started if none answers. Called
    before any key is read: the spawner is to hold no secret. Blocking."""
    try:
        return packets.connect(directory)
    except OSError:
        pass
    command = [sys.executable, "-P", "-m", "sth_sandbox.spawner", "--directory", str(directory)]
    if allow_unsandboxed:
        command.append("--allow-unsandboxed")
    try:
        done = subprocess.run(
            [*command, "--daemon"],
            stdin=subprocess.DEVNULL,
            timeout=START_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Misconfigured(f"the spawner could not be started: {error}") from None
    if done.returncode != 0:
        raise Misconfigured(
            f"the spawner could not be started: it ended with {done.returncode}",
            hint="what it said stands above",
        )
    try:
        return packets.connect(directory)
    except OSError as error:
        raise Misconfigured(f"the spawner does not answer: {error}") from None


class SpawnerClient:
    """`exited` and `gone` are called from the loop: with an Instance's exit, and when the spawner
    itself has ended."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        exited: Callable[[str, Exit], None],
        gone: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._exited = exited
        self._gone = gone
        self._next_id = 0
        self._answers: dict[int, asyncio.Future[tuple[Json, list[int]]]] = {}
        self._unsent: deque[tuple[Json, list[int]]] = deque()
        self._closed = True
        self.use(connection)

    def use(self, connection: socket.socket) -> None:
        """Talk over this connection from now on: the first one, or one to a new spawner."""
        self._connection = connection
        self._closed = False
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._readable)

    def close(self) -> None:
        """End the connection; what was asked ends with SpawnerGone."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        for _, descriptors in self._unsent:
            packets.close_all(descriptors)
        self._unsent.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SpawnerGone("the spawner has ended"))

    async def hello(self) -> Spawner:
        """Who answers; VersionUnsupported if it is of another installation."""
        answer, _ = await self._request("hello", version=VERSION)
        report = answer.get("report")
        return Spawner(int(answer.get("pid") or 0), report if isinstance(report, dict) else {})

    async def have(self, sha256: str) -> bool:
        """Whether this package is unpacked already."""
        answer, _ = await self._request("have", sha256=sha256)
        return answer.get("present") is True

    async def unpack(self, sha256: str, package: int) -> None:
        """Hash and unpack a package. Its descriptor stays the caller's."""
        await self._ask("unpack", [package], UNPACK_TIMEOUT, {"sha256": sha256})

    async def start(self, **fields: object) -> Started:
        """Start an Instance; its streams become the caller's."""
        answer, descriptors = await self._ask("start", (), REQUEST_TIMEOUT, fields)
        return _started(answer, descriptors)

    async def attach(self, instance: str) -> Started:
        """An Instance that another agent started; its streams become the caller's."""
        answer, descriptors = await self._request("attach", instance=instance)
        return _started(answer, descriptors)

    async def list_instances(self) -> list[Listed]:
        """All Instances that the spawner remembers."""
        found: list[Listed] = []
        after = ""
        while True:
            answer, _ = await self._request("list", after=after)
            page = answer.get("instances") or []
            for each in page:
                after = str(each["instance"])
                found.append(
                    Listed(after, int(each["pid"]), bool(each["running"]), exit_from(each["exit"]))
                )
            if not answer.get("more"):
                return found

    async def signal(self, instance: str, number: int) -> None:
        await self._request("signal", instance=instance, signal=number)

    async def close_stdin(self, instance: str) -> None:
        """Close the spawner's copy, so that the program sees the end."""
        await self._request("close", instance=instance, stream="stdin")

    async def remove(self, instance: str) -> None:
        """Forget an Instance that has ended."""
        await self._request("remove", instance=instance)

    async def shutdown(self, grace_ms: int) -> None:
        """Stop all Instances, then the spawner."""
        timeout = REQUEST_TIMEOUT + grace_ms / 1000
        await self._ask("shutdown", (), timeout, {"grace_ms": grace_ms})

    # -- packets -------------------------------------------------------------------------------

    async def _request(self, operation: str, **fields: object) -> tuple[Json, list[int]]:
        return await self._ask(operation, (), REQUEST_TIMEOUT, fields)

    async def _ask(
        self,
        operation: str,
        descriptors: Sequence[int],
        timeout: float,
        fields: Mapping[str, object],
    ) -> tuple[Json, list[int]]:
        if self._closed:
            raise SpawnerGone("the spawner has ended")
        self._next_id += 1
        number = self._next_id
        answer: asyncio.Future[tuple[Json, list[int]]] = self._loop.create_future()
        self._answers[number] = answer
        # The caller may close its own before the packet is sent.
        copies = [os.dup(each) for each in descriptors]
        self._unsent.append(({"op": operation, "id": number, **fields}, copies))
        self._send_unsent()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise TimedOut(f"the spawner did not answer to {operation}") from None
        finally:
            self._answers.pop(number, None)

    def _send_unsent(self) -> None:
        while self._unsent:
            message, descriptors = self._unsent[0]
            try:
                packets.send_packet(self._connection, message, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._connection.fileno(), self._send_unsent)
                return
            except packets.PacketError as error:
                self._settle(message["id"], SthError(f"cannot be asked: {error}"))
            except OSError:
                self._lost()
                return
            self._unsent.popleft()
            packets.close_all(descriptors)
        self._loop.remove_writer(self._connection.fileno())

    def _readable(self) -> None:
        while not self._closed:
            try:
                message, descriptors = packets.receive_packet(self._connection)
            except BlockingIOError:
                return
            except packets.PacketError as error:
                logger.error("the spawner sent a packet that is none: %s", error)
                continue
            except (EOFError, OSError):
                self._lost()
                return
            self._take(message, descriptors)

    def _take(self, message: Json, descriptors: list[int]) -> None:
        if message.get("event") == "exited":
            ended = exit_from(message.get("exit"))
            if ended is not None:
                self._exited(str(message.get("instance")), ended)
            return
        answer = self._answers.get(message.get("id") or 0)
        if answer is None or answer.done():
            packets.close_all(descriptors)
            return
        error = message.get("error")
        if isinstance(error, dict):
            packets.close_all(descriptors)
            answer.set_exception(from_wire(error))
        else:
            answer.set_result((message, descriptors))

    def _settle(self, number: int, error: SthError) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _lost(self) -> None:
        self.close()
        self._gone()


def _started(answer: Json, descriptors: list[int]) -> Started:
    if len(descriptors) != 7:
        packets.close_all(descriptors)
        raise StreamFailed(f"the spawner handed out {len(descriptors)} descriptors of 7")
    return Started(
        pid=int(answer.get("pid") or 0),
        path=str(answer.get("path") or ""),
        sandbox={"sandboxed": answer.get("sandboxed"), "limits": answer.get("limits") or {}},
        stdin_closed="stdin" in (answer.get("closed") or ()),
        streams=Descriptors(*descriptors),
    )
