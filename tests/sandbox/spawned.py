"""A real spawner for tests, as root or as an ordinary user, and an agent's side of its socket."""

import contextlib
import hashlib
import io
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sth_sandbox import packets
from sth_sandbox.channels import STREAMS
from sth_sandbox.runners import frames

SOURCES = Path(packets.__file__).resolve().parent.parent
NOBODY = 65534
TIMEOUT = 30.0
PYTHON_PACKAGE = '{"main": "main.py", "engines": {"python3": ">=3.11"}}'

Json = dict[str, Any]


class Refused(Exception):
    """The spawner answered with an error."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.message = error["message"]
        self.hint = error["hint"]


@dataclass
class Started:
    """An Instance with the agent's ends of its streams."""

    name: str
    answer: Json
    streams: dict[str, int] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return int(self.answer["pid"])

    def read_all(self, stream: str) -> bytes:
        """All that comes on a stream until its end."""
        pieces = []
        while wait_readable(self.streams[stream]) and (
            piece := os.read(self.streams[stream], 65536)
        ):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        packets.close_all(self.streams.values())
        self.streams.clear()


class Agent:
    """One connection to a spawner: requests, answers, events."""

    def __init__(self, directory: Path) -> None:
        self.connection = packets.connect(directory)
        self.connection.settimeout(TIMEOUT)
        self.events: list[Json] = []
        self._numbers = 0
        self._answers: dict[int, tuple[Json, list[int]]] = {}
        self._started: list[Started] = []

    def send(self, operation: str, descriptors: Sequence[int] = (), **fields: object) -> int:
        """Ask without waiting; the number of the request."""
        self._numbers += 1
        message = {"op": operation, "id": self._numbers, **fields}
        packets.send_packet(self.connection, message, descriptors)
        return self._numbers

    def answer(self, number: int) -> tuple[Json, list[int]]:
        """Wait for the answer to that request; Refused if it is an error."""
        while number not in self._answers:
            self._receive()
        message, descriptors = self._answers.pop(number)
        if "error" in message:
            raise Refused(message["error"])
        return message, descriptors

    def answered(self) -> set[int]:
        """The requests whose answers have come and wait to be taken."""
        return set(self._answers)

    def ask(self, operation: str, descriptors: Sequence[int] = (), **fields: object) -> Json:
        message, received = self.answer(self.send(operation, descriptors, **fields))
        packets.close_all(received)
        return message

    def unpack(self, package: bytes, *, sha256: str = "") -> str:
        """Hand a package over; its hash."""
        sha256 = sha256 or hashlib.sha256(package).hexdigest()
        with tempfile.TemporaryFile() as file:
            file.write(package)
            file.flush()
            self.ask("unpack", [file.fileno()], sha256=sha256)
        return sha256

    def start(self, sha256: str, **fields: object) -> Started:
        name = str(fields.pop("instance", uuid.uuid4()))
        return self.started(name, self.send_start(sha256, name, **fields))

    def send_start(self, sha256: str, name: str, **fields: object) -> int:
        asked: Json = {"language": "python", "isolation": "zygote", **fields}
        return self.send("start", instance=name, sha256=sha256, **asked)

    def started(self, name: str, number: int) -> Started:
        answer, descriptors = self.answer(number)
        assert len(descriptors) == len(STREAMS)
        started = Started(name, answer, dict(zip(STREAMS, descriptors, strict=True)))
        self._started.append(started)
        return started

    def attach(self, name: str) -> Started:
        return self.started(name, self.send("attach", instance=name))

    def run(self, started: Started, **fields: object) -> None:
        """Tell a runner to load and run its program."""
        message = {
            "type": "start",
            "instance": started.name,
            "path": started.answer["path"],
            "main": "main.py",
            "args": [],
            "config": {},
            "input_topic": "",
            "output_topic": "",
            "requires": None,
            "language": "python",
            **fields,
        }
        frame = frames.pack_frame(frames.MESSAGE, json.dumps(message).encode())
        os.write(started.streams["control"], frame)

    def exit_of(self, name: str) -> Json:
        """Wait for the event that it ended."""
        while True:
            for event in self.events:
                if event.get("event") == "exited" and event["instance"] == name:
                    return dict(event["exit"])
            self._receive()

    def close(self) -> None:
        self.connection.close()
        for started in self._started:
            started.close()
        for _, descriptors in self._answers.values():
            packets.close_all(descriptors)

    def _receive(self) -> None:
        message, descriptors = packets.receive_packet(self.connection)
        if "event" in message:
            self.events.append(message)
        else:
            number = message["id"]
            assert isinstance(number, int), message
            self._answers[number] = message, descriptors


class Spawner:
    """A spawner's process. `ordinary`: as a user without privileges."""

    def __init__(self, *, ordinary: bool = False, options: Sequence[str] = ()) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="sth-spawner-"))
        self.directory = self.base / "state"
        self.ordinary = ordinary
        self._agents: list[Agent] = []
        self._user: int | None = None
        if ordinary and os.geteuid() == 0:
            self._user = NOBODY
            self._give_away()
        self._options = options
        self.restart()

    def restart(self) -> None:
        """Start it, again after it has ended."""
        self.process = subprocess.Popen(
            self.command(*self._options),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self._sources())},
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.close()
            raise

    def command(self, *options: str) -> list[str]:
        agent = ["--agent-uid", str(os.geteuid())] if self._user is not None else []
        python = sys.executable if self._user is None else ordinary_python()
        directory = ["--directory", str(self.directory)]
        return [python, "-m", "sth_sandbox.spawner", *directory, *agent, *options]

    @property
    def pid(self) -> int:
        return self.process.pid

    def agent(self) -> Agent:
        agent = Agent(self.directory)
        self._agents.append(agent)
        return agent

    def close_agents(self) -> None:
        for agent in self._agents:
            agent.close()
        self._agents.clear()

    def close(self) -> None:
        self.close_agents()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def _sources(self) -> Path:
        return SOURCES if self._user is None else self.base / "sources"

    def _give_away(self) -> None:
        """Sources and a folder that another user can reach, outside anybody's home."""
        os.chmod(self.base, 0o755)
        for package in ("sth_sandbox", "sth"):
            ignored = shutil.ignore_patterns("__pycache__")
            target = self.base / "sources" / package
            shutil.copytree(SOURCES / package, target, ignore=ignored)
        for path in (self.base / "sources").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chmod(self.base / "sources", 0o755)
        self.directory.mkdir()
        os.chown(self.directory, NOBODY, NOBODY)

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        path = self.directory / packets.SOCKET_NAME
        while True:
            with contextlib.suppress(OSError):
                packets.connect(self.directory).close()
                return
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"no spawner at {path}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)


def ordinary_python() -> str:
    """An interpreter that any user can run: not one in a private home."""
    return "/usr/bin/python3"


def modes() -> list[str]:
    """The ways in which this machine can be tested: as root in both, else as we are."""
    return ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


def make_package(files: Mapping[str, str | bytes]) -> bytes:
    """A package of these files, with a package.json for Python unless there is one."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, content in {"package.json": PYTHON_PACKAGE, **files}.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return output.getvalue()


def run_inside(agent: Agent, code: str, **fields: object) -> Any:
    """Run code as a Sequence; what it assigned to `result`, by way of JSON and its stdout.

    The code stands in a function: imports go inside.
    """
    body = "\n".join("    " + line for line in code.splitlines())
    program = f"def run(context, input):\n{body}\n    import json\n    print(json.dumps(result))\n"
    started = agent.start(agent.unpack(make_package({"main.py": program})), **fields)
    agent.run(started)
    output = started.read_all("stdout")
    errors = started.read_all("stderr")
    assert output, f"it printed nothing: {errors.decode()} {agent.exit_of(started.name)}"
    return json.loads(output)


def wait_readable(descriptor: int) -> bool:
    ready, _, _ = select.select([descriptor], [], [], TIMEOUT)
    assert ready, "nothing came in time"
    return True


def wait_gone(pid: int) -> None:
    """Until this process has ended; TimeoutError if it lives on."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], TIMEOUT)
    finally:
        os.close(descriptor)
    if not ready:
        raise TimeoutError(f"process {pid} lives on")


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        yield first, second


def open_descriptors() -> set[str]:
    """Of this process, each with where it leads."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found
