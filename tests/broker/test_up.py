"""`sth-broker up` as a process: from nothing to open ports, and to its end."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.system import Process
from tests.support.waiting import wait_for

from sth_client import Client


@dataclass
class Up:
    """One data directory and the brokers that use it, one after the other."""

    directory: Path
    local_hub: bool = False
    process: Process | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "broker.json").read_text())
        return found

    @property
    def env(self) -> dict[str, str]:
        home = {"HOME": str(self.directory), "XDG_CONFIG_HOME": str(self.directory / "config")}
        return {"PATH": os.environ["PATH"], **home}

    def command(self, *options: str) -> list[str]:
        base = [sys.executable, "-m", "sth_broker", "up", "--data", str(self.data)]
        hub = [] if self.local_hub else ["--no-local-hub"]
        return [*base, "--agents", "127.0.0.1:0", *hub, *options]

    def start(self, *options: str) -> None:
        command = self.command("--listen", "127.0.0.1:0", *options)
        self.process = Process(command, log=self.directory / "log", env=self.env)
        wait_for("the broker is up", self._ready)

    def _ready(self) -> bool:
        assert self.process is not None
        self.process.assert_running()
        return (self.data / "broker.json").exists()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        return process.end(how)

    def fails(self, *options: str) -> subprocess.CompletedProcess[str]:
        """What a broker says that cannot run."""
        return subprocess.run(
            self.command(*options),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    if running.process is not None:
        running.end()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_up_from_nothing_writes_what_others_need(up: Up) -> None:
    up.start()
    facts = up.facts
    assert up.process is not None
    assert facts["pid"] == up.process.popen.pid
    process = up.process
    # The last of what it says; the profile is written before it.
    wait_for("it has said all", lambda: "Add a machine" in process.text())
    said = process.text()
    assert facts["url"] in said
    assert facts["agents"] in said
    profile = tomllib.loads((up.directory / "config" / "sth" / "config.toml").read_text())
    assert profile["current"] == "local"
    local = profile["profile"]["local"]
    assert (local["url"], local["space"]) == (facts["url"], "default")
    assert Path(local["token_file"]) == up.data / "admin.token"
    assert mode(up.data) == 0o700
    for name in ("admin.token", "broker.json", "audit.jsonl"):
        assert mode(up.data / name) == 0o600, name


def test_api_beyond_loopback_is_warned_of(up: Up) -> None:
    up.start()
    first = up.process
    assert first is not None
    wait_for("it has said all", lambda: "Add a machine" in first.text())
    up.end()
    assert "no TLS" not in first.text()
    up.start("--listen", "0.0.0.0:0")
    process = up.process
    assert process is not None
    wait_for("the warning", lambda: "no TLS of its own" in process.text())


async def test_up_again_keeps_tokens_ports_and_what_was_stored(up: Up) -> None:
    await asyncio.to_thread(up.start)
    before, token = up.facts, (up.data / "admin.token").read_text()
    headers = {"Authorization": f"Bearer {token.strip()}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        body = {"id": "kept", "content-type": "text/plain"}
        async with http.post(f"{before['url']}/api/v1/topics", json=body) as response:
            assert response.status == 200
    assert await asyncio.to_thread(up.end) == 0
    assert not (up.data / "broker.json").exists()
    await asyncio.to_thread(up.start)
    assert (up.facts["url"], up.facts["agents"]) == (before["url"], before["agents"])
    assert (up.data / "admin.token").read_text() == token
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{before['url']}/api/v1/topics") as response,
    ):
        assert [each["topic"] for each in await response.json()] == ["kept"]


async def test_sigterm_ends_open_streams_and_the_broker(up: Up) -> None:
    await asyncio.to_thread(up.start)
    url = up.facts["url"]
    headers = {"Authorization": f"Bearer {(up.data / 'admin.token').read_text().strip()}"}
    async with aiohttp.ClientSession(url, headers=headers) as http:
        topic = "/api/v1/topic/open"
        async with http.get(topic) as reading, http.get("/healthz") as idle:
            assert idle.status == 200
            ending = asyncio.create_task(asyncio.to_thread(up.end))
            # The stream breaks: the end of the broker is not the end of a Topic.
            with pytest.raises(aiohttp.ClientPayloadError):
                await reading.content.read()
            assert await ending == 0


def test_ctrl_c_ends_it_too(up: Up) -> None:
    up.start()
    assert up.end(signal.SIGINT) == 130


def test_killed_broker_leaves_nothing_in_the_way(up: Up) -> None:
    up.start()
    up.end(signal.SIGKILL)
    (up.data / "broker.json").unlink()
    up.start()


def test_second_broker_in_one_directory_is_refused(up: Up) -> None:
    up.start()
    said = up.fails("--listen", "127.0.0.1:0")
    assert said.returncode == 5
    assert "already runs" in said.stderr
    assert "Traceback" not in said.stderr


def test_taken_port_is_named(up: Up) -> None:
    up.start()
    port = up.facts["url"].rpartition(":")[2]
    other = Up(up.directory / "other")
    other.directory.mkdir()
    said = other.fails("--listen", f"127.0.0.1:{port}")
    assert said.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}" in said.stderr
    assert "--listen" in said.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "nowhere at all"),
        ("--agents", "127.0.0.1:99999"),
        ("--advertise", "http://example.com"),
        ("--data", "/dev/null/x"),
    ],
)
def test_wrong_options_are_refused_without_a_traceback(up: Up, options: tuple[str, str]) -> None:
    said = up.fails("--listen", "127.0.0.1:0", *options)
    assert said.returncode == 78
    assert "Traceback" not in said.stderr


@pytest.fixture
def with_hub(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path, local_hub=True)
    yield running
    if running.process is not None:
        running.end()
    agent(running, "stop", "--grace", "1s")


def agent(up: Up, *arguments: str) -> int:
    """The exit code of `sth-agent ARGUMENTS` about the built-in Hub."""
    command = [sys.executable, "-m", "sth_agent", *arguments, "--state", str(up.data / "hub")]
    return subprocess.run(
        command, env=up.env, capture_output=True, timeout=60, check=False
    ).returncode


def online(up: Up) -> bool:
    token = (up.data / "admin.token").read_text().strip()
    hubs = Client(up.facts["url"], token=token).hubs()
    return [(each.name, each.status) for each in hubs] == [("local", "online")]


def agent_process(up: Up) -> int:
    """The id of the built-in Hub's process; 0 if there is none."""
    wanted = ["run", "--state", str(up.data / "hub")]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_text().split("\0")[-4:-1] == wanted:
                return int(entry.name)
    return 0


def test_built_in_hub_outlives_the_broker_and_is_found_again(with_hub: Up) -> None:
    with_hub.start()
    wait_for("the Hub is online", lambda: online(with_hub))
    process = agent_process(with_hub)
    assert with_hub.end() == 0
    assert process == agent_process(with_hub) != 0
    with_hub.start()
    wait_for("the Hub is online again", lambda: online(with_hub))
    assert process == agent_process(with_hub)


def test_stop_all_ends_the_built_in_hub_with_the_broker(with_hub: Up) -> None:
    with_hub.start("--stop-all")
    wait_for("the Hub is online", lambda: online(with_hub))
    assert with_hub.end() == 0
    assert agent_process(with_hub) == 0


def test_built_in_hub_that_dies_is_started_again(with_hub: Up) -> None:
    with_hub.start()
    wait_for("the Hub is online", lambda: online(with_hub))
    process = agent_process(with_hub)
    os.kill(process, signal.SIGKILL)
    wait_for("another one runs", lambda: agent_process(with_hub) not in (0, process))
    wait_for("the Hub is online again", lambda: online(with_hub))
