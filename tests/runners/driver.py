"""A runner in a process of its own, driven over real sockets as an agent would.

No sandbox: only descriptors 0 to 6 are what wire.md section 4 says.
"""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Frame, FrameReader

RUNNERS = Path(frames.__file__).parent
TIMEOUT = 20.0
_FIRST_HIGH_DESCRIPTOR = 200  # above 0 to 6, which are filled in the child

NODE = shutil.which("node")


def command_of(language: str) -> list[str]:
    """How a runner is started in an interpreter of its own."""
    if language == "python":
        return [sys.executable, "-I", "-S", str(RUNNERS / "python")]
    assert NODE is not None
    return [NODE, str(RUNNERS / "node" / "runner.cjs")]


class FrameStream:
    """Frames of one socket, both ways."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self._offset = 0
        self._number = 0

    async def read(self) -> Frame:
        """The next frame. EOFError when the runner has closed."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            while not self._frames:
                data = await loop.sock_recv(self.socket, 1 << 20)
                if not data:
                    raise EOFError
                self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    async def send(self, frame_type: int, payload: bytes = b"", *, flags: int = 0) -> None:
        """One frame. A DATA frame goes on where the last one ended."""
        count = payload.count(b"\n") if frame_type == frames.DATA else 0
        packed = frames.pack_frame(
            frame_type,
            payload,
            flags=flags,
            count=count,
            offset=self._offset,
            number=self._number,
        )
        if frame_type == frames.DATA:
            self._offset += len(payload)
            self._number += count
        await self.send_raw(packed)

    async def send_raw(self, data: bytes) -> None:
        """Bytes as they are."""
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)


@dataclass
class Ended:
    """What was left of a run."""

    code: int
    output: list[Frame]
    messages: list[dict[str, Any]]
    logs: list[dict[str, Any]]
    stdout: str
    stderr: str

    @property
    def content(self) -> bytes:
        """The payloads of the output."""
        return b"".join(f.payload for f in self.output if f.header.type == frames.DATA)

    @property
    def declared(self) -> dict[str, Any]:
        """What the TYPE frame of the output says."""
        first = self.output[0]
        assert first.header.type == frames.TYPE
        described: dict[str, Any] = json.loads(first.payload)
        return described

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The control messages of one type."""
        return [message for message in self.messages if message["type"] == kind]


@dataclass
class Runner:
    """A running runner. Everything that comes is kept until it is asked for."""

    pid: int
    input: FrameStream
    output: FrameStream
    control: FrameStream
    log: FrameStream
    stdout: int
    stderr: int
    stdin: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    exited: bool = False

    async def send(self, kind: str, **fields: Any) -> None:
        """A control message."""
        await self.control.send_raw(frames.pack_message({"type": kind, **fields}))

    async def message(self, kind: str) -> dict[str, Any]:
        """The next control message of a type; others are kept in `messages`."""
        while True:
            frame = await self.control.read()
            message: dict[str, Any] = json.loads(frame.payload)
            self.messages.append(message)
            if message["type"] == kind:
                return message

    async def open_input(self, content_type: str) -> None:
        """The TYPE of the input."""
        await self.input.send(frames.TYPE, content_type.encode())

    async def feed(self, *payloads: bytes) -> None:
        """DATA frames of the input."""
        for payload in payloads:
            await self.input.send(frames.DATA, payload)

    async def end_input(self) -> None:
        """The END of the input."""
        await self.input.send(frames.END)

    async def read_output(self, size: int) -> bytes:
        """At least `size` bytes of output, or what there is when it ends."""
        got = b""
        while len(got) < size:
            frame = await self.output.read()
            if frame.header.type == frames.END:
                break
            if frame.header.type == frames.DATA:
                got += frame.payload
        return got

    async def wait(self) -> Ended:
        """Reads everything until the process is gone."""
        output, control, log, stdout, stderr, code = await asyncio.gather(
            _rest(self.output),
            _rest(self.control),
            _rest(self.log),
            _rest_of_pipe(self.stdout),
            _rest_of_pipe(self.stderr),
            self._exit_code(),
        )
        self.messages += [json.loads(frame.payload) for frame in control]
        logs = b"".join(frame.payload for frame in log)
        return Ended(
            code,
            output,
            self.messages,
            [json.loads(line) for line in logs.splitlines()],
            stdout.decode(),
            stderr.decode(),
        )

    async def _exit_code(self) -> int:
        async with asyncio.timeout(TIMEOUT):
            _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        self.exited = True
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Ends the process if it lives, and closes everything."""
        if not self.exited:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        for stream in (self.input, self.output, self.control, self.log):
            stream.socket.close()
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.close(descriptor)


async def _rest(stream: FrameStream) -> list[Frame]:
    found: list[Frame] = []
    try:
        while True:
            found.append(await stream.read())
    except (EOFError, ConnectionResetError):
        return found


async def _rest_of_pipe(descriptor: int) -> bytes:
    found = b""
    while piece := await asyncio.to_thread(os.read, descriptor, 65536):
        found += piece
    return found


def spawn(command: list[str]) -> Runner:
    """Starts a runner that waits for its start message."""
    pairs = [socket.socketpair() for _ in range(4)]
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    from_stderr, stderr = os.pipe()
    given = [stdin, stdout, stderr, *(theirs.fileno() for _, theirs in pairs)]
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR) for each in given]
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            {"PATH": os.defpath, "LANG": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, each, n) for n, each in enumerate(high)],
        )
    finally:
        for each in (*high, stdin, stdout, stderr):
            os.close(each)
        for _, theirs in pairs:
            theirs.close()
    source, sink, control, log = (FrameStream(ours) for ours, _ in pairs)
    return Runner(pid, source, sink, control, log, from_stdout, from_stderr, to_stdin)


@asynccontextmanager
async def running(
    language: str, package: Path, *, main: str = "", **start: Any
) -> AsyncIterator[Runner]:
    """A runner that was told to start what is in `package`."""
    runner = spawn(command_of(language))
    try:
        fields: dict[str, Any] = {
            "instance": "11111111-2222-4333-8444-555555555555",
            "path": str(package),
            "main": main or main_file(language),
            "args": [],
            "config": {},
            "input_topic": "",
            "output_topic": "",
            "requires": None,
            "language": language,
        }
        await runner.send("start", **(fields | start))
        yield runner
    finally:
        runner.close()


def main_file(language: str) -> str:
    """The usual name of a program's file."""
    return "main.py" if language == "python" else "index.js"


def write_program(package: Path, language: str, source: str) -> Path:
    """A package with one file."""
    package.mkdir(exist_ok=True)
    (package / main_file(language)).write_text(textwrap.dedent(source))
    return package
