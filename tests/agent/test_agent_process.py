"""`sth-agent` as processes: who ends what, what is loaded, what the commands say."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import packages
from tests.support.system import Agent, System
from tests.support.waiting import wait_for

from sth_client import Client

HEAVY = {"aiohttp", "rich", "uvloop", "cryptography", "sqlite3"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system"), local_hub=False) as made:
        yield made


@pytest.fixture
def agent(system: System, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """One that is joined and online."""
    name = str(request.node.name).replace("_", "-")[:60].strip("-")
    made = system.join_agent(name)
    yield made
    made.stop()


def status(agent: Agent) -> dict[str, object]:
    done = agent.call("status", "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def pid(agent: Agent) -> int:
    assert agent.process is not None
    return agent.process.popen.pid


def is_alive(process: int) -> bool:
    """A process that has ended and is not waited for counts as gone."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def start_lines(client: Client, agent: Agent) -> str:
    name = str(status(agent)["name"])
    instance = client.start(client.upload(packages.python(packages.LINES)), hub=name)
    return str(instance)


def process_of(client: Client, instance: str) -> int:
    found = client.health(instance).process_id
    assert found
    return found


def test_status_shows_the_link_and_the_instances(system: System, agent: Agent) -> None:
    instance = start_lines(system.client(), agent)
    told = status(agent)
    assert told["space"] == "default"
    assert isinstance(told["connection"], dict)
    assert told["connection"]["state"] == "connected"
    assert isinstance(told["instances"], list)
    assert [each["instance"] for each in told["instances"]] == [instance]
    shown = agent.call("status")
    assert shown.returncode == 0
    assert "connected" in shown.stdout
    assert instance in shown.stdout


def test_sigterm_ends_the_agent_alone(system: System, agent: Agent) -> None:
    client = system.client()
    process = process_of(client, start_lines(client, agent))
    spawner = int(str(status(agent)["spawner"]))
    assert agent.process is not None
    assert agent.process.end(signal.SIGTERM) == 0
    assert is_alive(process)
    assert is_alive(spawner)
    told = agent.call("status")
    assert told.returncode == 6
    assert "no agent is running" in told.stderr
    done = agent.call("stop", "--grace", "100ms")
    assert (done.returncode, done.stdout) == (0, "Stopped.\n")
    assert not is_alive(process)
    assert not is_alive(spawner)
    assert agent.call("stop").stdout == "Nothing was running.\n"


def test_stop_ends_everything_and_instances_are_stopped(system: System, agent: Agent) -> None:
    client = system.client()
    instance = start_lines(client, agent)
    process, spawner = process_of(client, instance), int(str(status(agent)["spawner"]))
    done = agent.call("stop")
    assert (done.returncode, done.stdout) == (0, "Stopped.\n")
    assert [is_alive(each) for each in (process, spawner, pid(agent))] == [False] * 3
    wait_for("the broker knows", lambda: client.instance(instance).exit_code == 138)
    assert agent.process is not None
    assert agent.process.end() == 0


def test_leave_removes_the_identity(system: System, agent: Agent) -> None:
    refused = agent.call("leave")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = agent.call("leave", "--yes", "--grace", "0")
    assert done.returncode == 0, done.stderr
    assert "has left Space default" in done.stdout
    assert not is_alive(pid(agent))
    assert not (agent.state / "identity").exists()
    for command in ("run", "status", "leave"):
        told = agent.call(command)
        assert told.returncode == 78
        assert "sth-agent join" in told.stderr


def test_second_agent_of_a_directory_is_a_conflict(system: System, agent: Agent) -> None:
    done = agent.call("run")
    assert done.returncode == 5
    assert "already running" in done.stderr


def test_join_again_finds_the_running_agent(system: System, agent: Agent) -> None:
    done = agent.join(system.client().make_join_token().token)
    assert done.returncode == 0
    assert done.stdout.startswith("Already joined as ")
    assert done.stdout.endswith("; connected.\n")


def test_join_with_replace_changes_the_running_agent(system: System, agent: Agent) -> None:
    before = str(status(agent)["hub"])
    token = system.client().make_join_token().token
    done = agent.join(token, "--replace", "--name", "another-name")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Joined as another-name; connected.\n"
    assert status(agent)["hub"] != before


def test_stderr_of_the_agent_is_a_log_and_stdout_is_empty(system: System, agent: Agent) -> None:
    wait_for("it says that it is linked", lambda: "linked" in agent.log.read_text())


def test_control_socket_refuses_what_it_does_not_know(system: System, agent: Agent) -> None:
    for line, code in (
        (b'{"op": "sing"}\n', "BAD_REQUEST"),
        (b"[]\n", "BAD_REQUEST"),
        (b"nonsense\n", "BAD_REQUEST"),
        (b'{"op": "stop", "grace_ms": "x"}\n', "BAD_REQUEST"),
    ):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(agent.state / "agent.sock"))
            stream.sendall(line)
            assert json.loads(stream.makefile().readline())["error"]["code"] == code
    with socket.socket(socket.AF_UNIX) as stream, contextlib.suppress(BrokenPipeError):
        stream.connect(str(agent.state / "agent.sock"))
        stream.sendall(b"x" * 2_000_000)
    assert status(agent)["space"] == "default"


def test_state_directory_may_have_a_long_path(system: System) -> None:
    """A unix socket's address holds 107 bytes."""
    name = "deep/" + "d" * 120
    (system.directory / name).parent.mkdir(parents=True, exist_ok=True)
    agent = system.add_agent(name)
    token = system.client().make_join_token().token
    assert agent.join(token, "--name", "deep").returncode == 0
    agent.run()
    system.wait_for_hub("deep")
    assert status(agent)["name"] == "deep"
    assert agent.call("stop", "--grace", "0").returncode == 0


def test_running_agent_is_light(system: System, agent: Agent) -> None:
    """What it has loaded: shared objects of the heavy ones would be mapped."""
    client = system.client()
    process_of(client, start_lines(client, agent))
    mapped = Path(f"/proc/{pid(agent)}/maps").read_text()
    assert "_ssl" in mapped
    assert not [each for each in HEAVY if f"/{each}/" in mapped or f"_{each}" in mapped]
    resident = int(Path(f"/proc/{pid(agent)}/statm").read_text().split()[1])
    assert resident * os.sysconf("SC_PAGE_SIZE") < 48 * 1024 * 1024


def test_commands_of_the_agent_do_not_load_what_they_do_not_need() -> None:
    code = "import sth_agent.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"asyncio", "ssl", "websockets", "msgpack", *HEAVY})
