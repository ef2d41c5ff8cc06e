"""A real broker and real agents as processes, with state of their own, for tests and the demo."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.waiting import wait_for

from sth_client import Client

STOP_SECONDS = 15.0


class Process:
    """A program in the background; what it says goes to `log`."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        self._output: IO[bytes] = log.open("ab")
        self.popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, env=env
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait; its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        try:
            return self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"still running after {how.name}: {self.text()[-2000:]}") from None
        finally:
            self._output.close()

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def assert_running(self) -> None:
        code = self.popen.poll()
        assert code is None, f"ended with {code}: {self.text()[-2000:]}"


@dataclass
class Agent:
    """A joined machine: its state directory, and its process while it runs."""

    state: Path
    log: Path
    env: Mapping[str, str]
    prefix: Sequence[str] = ()
    process: Process | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line of `sth-agent ARGUMENTS --state …` on that machine."""
        base = [*self.prefix, sys.executable, "-m", "sth_agent"]
        return [*base, *arguments, "--state", str(self.state)]

    def call(
        self, *arguments: str, seconds: float = 60, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `sth-agent ARGUMENTS` to its end."""
        return subprocess.run(
            self.command(*arguments),
            check=False,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=seconds,
            input=given,
        )

    def join(self, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Join with the token given on standard input, as a secret should be."""
        return self.call("join", "-", "--no-service", *arguments, given=token)

    def run(self) -> None:
        self.process = Process(self.command("run"), log=self.log, env=self.env)

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel would."""
        assert self.process is not None
        self.process.end(signal.SIGKILL)

    def stop(self) -> None:
        """End the agent, its spawner and its Instances."""
        if self.state.exists():
            self.call("stop", "--grace", "1s")
        if self.process is not None:
            self.process.end()


@dataclass
class System:
    """One broker and its machines below `directory`. Use as a context manager."""

    directory: Path
    local_hub: bool = True
    listen_agents: str = "127.0.0.1:0"
    advertise: Sequence[str] = ("127.0.0.1",)
    options: Sequence[str] = ()
    agents: list[Agent] = field(default_factory=list)
    broker: Process | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.start_broker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def env(self) -> dict[str, str]:
        """The environment of every process here: nothing of the user's own profile."""
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TERM") if key in os.environ}
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {**keep, "HOME": str(home), "PYTHONUNBUFFERED": "1"}

    @property
    def data(self) -> Path:
        return self.directory / "broker"

    @property
    def facts(self) -> dict[str, Any]:
        """What the broker wrote of itself: url, agents' address, process id."""
        found: dict[str, Any] = json.loads((self.data / "broker.json").read_text())
        return found

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def client(self) -> Client:
        return Client(self.url, token=self.token)

    def start_broker(self) -> None:
        """Start it and wait until it answers and, if it has one, its own Hub is there."""
        with contextlib.suppress(FileNotFoundError):
            (self.data / "broker.json").unlink()
        addresses = [each for address in self.advertise for each in ("--advertise", address)]
        local = [] if self.local_hub else ["--no-local-hub"]
        self.broker = Process(
            [
                *(sys.executable, "-m", "sth_broker", "up", "--data", str(self.data)),
                *("--listen", "127.0.0.1:0", "--agents", self.listen_agents),
                *addresses,
                *local,
                *self.options,
            ],
            log=self.directory / "broker.log",
            env=self.env,
        )
        wait_for("the broker is up", self._ready, seconds=30)
        if self.local_hub:
            self.wait_for_hub("local")

    def _ready(self) -> bool:
        assert self.broker is not None
        self.broker.assert_running()
        return (self.data / "broker.json").exists()

    def wait_for_hub(self, name: str, status: str = "online") -> str:
        """The id of the Hub of that name, once it has that status."""

        def probe() -> str | None:
            hubs = self.client().hubs()
            return next((h.id for h in hubs if h.name == name and h.status == status), None)

        return wait_for(f"Hub {name} is {status}", probe, seconds=30)

    def add_agent(self, name: str, *, prefix: Sequence[str] = ()) -> Agent:
        """A machine that is not joined yet."""
        agent = Agent(
            self.directory / name, self.directory / f"{name}.log", self.env, prefix=tuple(prefix)
        )
        self.agents.append(agent)
        return agent

    def join_agent(self, name: str, *, prefix: Sequence[str] = ()) -> Agent:
        """A machine that is joined, running and online."""
        agent = self.add_agent(name, prefix=prefix)
        done = agent.join(self.client().make_join_token().token, "--name", name)
        assert done.returncode == 0, done.stderr
        agent.run()
        self.wait_for_hub(name)
        return agent

    def close(self) -> None:
        """End everything, the built-in Hub too."""
        for agent in self.agents:
            agent.stop()
        if self.local_hub:
            Agent(self.data / "hub", self.directory / "hub.log", self.env).stop()
        if self.broker is not None:
            self.broker.end()
