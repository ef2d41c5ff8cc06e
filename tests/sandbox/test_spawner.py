"""The spawner's socket: Instances that outlive agents, clear refusals, nothing that ends it."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from tests.sandbox.spawned import (
    NOBODY,
    Agent,
    Refused,
    Spawner,
    make_package,
    ordinary_python,
    wait_gone,
    wait_readable,
)

from sth_sandbox import packets
from sth_sandbox.runners import frames

ECHO_PROGRAM = """
async def run(context, input):
    async for line in input:
        yield line.upper()
"""
ECHO = make_package({"main.py": ECHO_PROGRAM})
SLEEPER = make_package(
    {"main.py": "import time\ndef run(context, input):\n    print('up')\n    time.sleep(600)\n"}
)
NOTHING = make_package({"main.py": "def run(context, input):\n    pass\n"})


def framed(kind: int, payload: bytes = b"", *, offset: int = 0) -> bytes:
    return frames.pack_frame(kind, payload, offset=offset)


def read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        wait_readable(descriptor)
        piece = os.read(descriptor, count - len(data))
        assert piece, f"the end after {data!r}"
        data += piece
    return data


def read_frame(descriptor: int) -> tuple[int, bytes]:
    header = read_exactly(descriptor, 32)
    return header[4], read_exactly(descriptor, int.from_bytes(header[:4], "little"))


def zygote_of(spawner: Spawner) -> int:
    """The one of its children that starts the others."""
    children = Path(f"/proc/{spawner.pid}/task/{spawner.pid}/children").read_text().split()
    found = [
        int(each)
        for each in children
        if Path(f"/proc/{each}/comm").read_text().strip() == "sth-zygote"
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("isolation", ["zygote", "exec"])
def test_instance_runs_its_program(agent: Agent, isolation: str) -> None:
    started = agent.start(agent.unpack(ECHO), isolation=isolation)
    assert started.answer["sandboxed"] is True
    agent.run(started)
    feed = started.streams["input"]
    os.write(feed, framed(frames.TYPE, b"text/plain"))
    os.write(feed, framed(frames.DATA, b"one\ntwo\n"))
    os.write(feed, framed(frames.END, offset=8))
    output = started.streams["output"]
    assert read_frame(output)[0] == frames.TYPE
    data = b""
    while (frame := read_frame(output))[0] == frames.DATA:
        data += frame[1]
    assert data == b"ONE\nTWO\n"
    assert agent.exit_of(started.name) == {"code": 0, "signal": None, "reason": "ended with code 0"}


def test_instance_outlives_the_agent_that_started_it(shared_spawner: Spawner) -> None:
    first = shared_spawner.agent()
    started = first.start(first.unpack(ECHO))
    first.run(started)
    os.write(started.streams["input"], framed(frames.TYPE, b"text/plain"))
    os.write(started.streams["input"], framed(frames.DATA, b"a\n"))
    assert read_frame(started.streams["output"])[0] == frames.TYPE
    wait_readable(started.streams["output"])
    first.close()

    second = shared_spawner.agent()
    listed = {each["instance"]: each for each in second.ask("list")["instances"]}
    assert listed[started.name]["running"] is True
    assert listed[started.name]["pid"] == started.pid
    assert listed[started.name]["start_time"] == started.answer["start_time"]
    again = second.attach(started.name)
    assert again.answer["path"] == started.answer["path"]
    assert read_frame(again.streams["output"]) == (frames.DATA, b"A\n")
    os.write(again.streams["input"], framed(frames.DATA, b"b\n", offset=2))
    os.write(again.streams["input"], framed(frames.END, offset=4))
    assert read_frame(again.streams["output"]) == (frames.DATA, b"B\n")
    assert second.exit_of(started.name)["code"] == 0


def test_instance_that_ended_while_no_agent_was_there_is_remembered(
    shared_spawner: Spawner,
) -> None:
    first = shared_spawner.agent()
    package = make_package({"main.py": "def run(context, input):\n    print('last words')\n"})
    started = first.start(first.unpack(package))
    watched = os.pidfd_open(started.pid)
    first.run(started)
    first.close()
    wait_readable(watched)
    os.close(watched)

    second = shared_spawner.agent()
    again = second.attach(started.name)
    assert again.read_all("stdout") == b"last words\n"
    (record,) = (e for e in second.ask("list")["instances"] if e["instance"] == started.name)
    assert record["running"] is False
    assert record["exit"]["code"] == 0
    second.ask("remove", instance=started.name)
    with pytest.raises(Refused) as refused:
        second.attach(started.name)
    assert refused.value.code == "NOT_FOUND"


def test_exit_event_goes_to_every_agent(shared_spawner: Spawner) -> None:
    agents = [shared_spawner.agent() for _ in range(3)]
    started = agents[0].start(agents[0].unpack(SLEEPER))
    agents[1].ask("hello", version=1)
    agents[2].ask("hello", version=1)
    agents[1].ask("signal", instance=started.name, signal=signal.SIGKILL)
    wanted = {"code": None, "signal": 9, "reason": "killed by SIGKILL"}
    assert [each.exit_of(started.name) for each in agents] == [wanted] * 3


def test_stdin_reads_as_ended_when_both_have_closed_it(shared_spawner: Spawner) -> None:
    agent = shared_spawner.agent()
    code = "import sys\ndef run(context, input):\n    print(len(sys.stdin.read()))\n"
    started = agent.start(agent.unpack(make_package({"main.py": code})))
    agent.run(started)
    os.write(started.streams["stdin"], b"12345")
    agent.ask("close", instance=started.name, stream="stdin")
    agent.ask("close", instance=started.name, stream="stdin")
    os.close(started.streams.pop("stdin"))
    assert started.read_all("stdout") == b"5\n"
    again = agent.attach(started.name)
    assert again.answer["closed"] == ["stdin"]
    assert stat.S_ISCHR(os.fstat(again.streams["stdin"]).st_mode)


def test_twenty_started_together_draw_different_numbers(shared_spawner: Spawner) -> None:
    agent = shared_spawner.agent()
    code = """
import os, random, ssl, tempfile, uuid
def run(context, input):
    with tempfile.NamedTemporaryFile() as file:
        name = os.path.basename(file.name)
    print(random.random(), uuid.uuid4(), name, ssl.RAND_bytes(8).hex(), os.getpid())
"""
    sha256 = agent.unpack(make_package({"main.py": code}))
    names = [str(uuid.uuid4()) for _ in range(20)]
    numbers = [agent.send_start(sha256, name) for name in names]
    started = [agent.started(*each) for each in zip(names, numbers, strict=True)]
    for each in started:
        agent.run(each)
    drawn = [each.read_all("stdout").split() for each in started]
    for position in range(4):
        assert len({each[position] for each in drawn}) == 20, position
    assert {each[4] for each in drawn} == {b"1"}


@pytest.mark.parametrize(
    ("operation", "fields", "code"),
    [
        ("start", {"instance": "x", "sha256": "0" * 64, "language": "python"}, "NOT_FOUND"),
        ("start", {"instance": "x", "sha256": "0" * 63, "language": "python"}, "BAD_REQUEST"),
        ("start", {"instance": "../x", "sha256": "0" * 64}, "BAD_REQUEST"),
        ("start", {"instance": "x", "sha256": "../../etc", "language": "python"}, "BAD_REQUEST"),
        ("start", {"instance": "x", "sha256": "0" * 64, "language": "perl"}, "BAD_REQUEST"),
        ("start", {"instance": "x", "sha256": "0" * 64, "network": "host"}, "BAD_REQUEST"),
        ("start", {"instance": "x", "sha256": "0" * 64, "isolation": []}, "BAD_REQUEST"),
        ("start", {"instance": "x", "sha256": "0" * 64, "limits": 3}, "BAD_REQUEST"),
        (
            "start",
            {"instance": "x", "sha256": "0" * 64, "limits": {"x" * 60_000: 1}},
            "BAD_REQUEST",
        ),
        (
            "start",
            {"instance": "x", "sha256": "0" * 64, "limits": {str(n): n for n in range(33)}},
            "BAD_REQUEST",
        ),
        ("start", {}, "BAD_REQUEST"),
        ("attach", {"instance": "unknown"}, "NOT_FOUND"),
        ("signal", {"instance": "unknown", "signal": 9}, "NOT_FOUND"),
        ("remove", {"instance": 3}, "BAD_REQUEST"),
        ("close", {"instance": "unknown", "stream": "output"}, "BAD_REQUEST"),
        ("list", {"after": {}}, "BAD_REQUEST"),
        ("have", {"sha256": None}, "BAD_REQUEST"),
        ("unpack", {"sha256": "0" * 64}, "BAD_REQUEST"),
        ("hello", {"version": 99}, "VERSION_UNSUPPORTED"),
        ("shutdown", {"grace_ms": -1}, "BAD_REQUEST"),
        ("no such", {}, "BAD_REQUEST"),
    ],
)
def test_request_refused_with_its_code(
    agent: Agent, operation: str, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        agent.answer(agent.send(operation, (), **fields))
    assert refused.value.code == code


def test_running_instance_is_neither_removed_nor_started_twice(agent: Agent) -> None:
    sha256 = agent.unpack(SLEEPER)
    started = agent.start(sha256)
    for operation, fields in (
        ("remove", {"instance": started.name}),
        ("start", {"instance": started.name, "sha256": sha256}),
        ("discard", {"sha256": sha256}),
    ):
        with pytest.raises(Refused) as refused:
            agent.answer(agent.send(operation, (), **fields))
        assert refused.value.code == "CONFLICT"
    with pytest.raises(Refused) as refused:
        agent.ask("signal", instance=started.name, signal=1000)
    assert refused.value.code == "BAD_REQUEST"
    agent.ask("signal", instance=started.name, signal=9)
    agent.exit_of(started.name)
    agent.ask("signal", instance=started.name, signal=9)
    agent.ask("discard", sha256=sha256)
    assert agent.ask("have", sha256=sha256)["present"] is False


def test_node_instance_starts_or_says_why_not(agent: Agent) -> None:
    sha256 = agent.unpack(NOTHING)
    if not agent.ask("hello", version=1)["node"]:
        with pytest.raises(Refused, match=r"Node\.js") as refused:
            agent.start(sha256, language="node")
        assert refused.value.code == "INSUFFICIENT_RESOURCES"
        return
    started = agent.start(sha256, language="node")
    executable = os.readlink(f"/proc/{started.pid}/exe")
    assert "node" in os.path.basename(executable)


def test_limits_that_do_not_exist_are_reported(agent: Agent) -> None:
    started = agent.start(agent.unpack(NOTHING), limits={"memory": 1000})
    assert started.answer["limits"]["memory"]["state"] == "absent"


def test_instances_die_with_the_spawner(spawner: Spawner) -> None:
    agent = spawner.agent()
    sha256 = agent.unpack(SLEEPER)
    started = [agent.start(sha256, isolation=each) for each in ("zygote", "exec")]
    for each in started:
        agent.run(each)
        assert read_exactly(each.streams["stdout"], 3) == b"up\n"
    spawner.process.kill()
    for each in started:
        wait_gone(each.pid)


def test_zygote_that_was_killed_is_replaced(spawner: Spawner) -> None:
    agent = spawner.agent()
    package = agent.unpack(SLEEPER)
    before = agent.start(package)
    zygote = zygote_of(spawner)
    os.kill(zygote, signal.SIGKILL)
    wait_gone(zygote)
    after = agent.start(package)
    agent.run(after)
    assert read_exactly(after.streams["stdout"], 3) == b"up\n"
    running = {each["pid"] for each in agent.ask("list")["instances"] if each["running"]}
    assert running == {before.pid, after.pid}
    assert zygote_of(spawner) != zygote


@pytest.mark.parametrize("by_signal", [False, True])
def test_spawner_ends_with_all_instances(spawner: Spawner, by_signal: bool) -> None:
    agent = spawner.agent()
    started = agent.start(agent.unpack(SLEEPER))
    agent.run(started)
    assert read_exactly(started.streams["stdout"], 3) == b"up\n"
    if by_signal:
        spawner.process.terminate()
        # It lets programs have their time: none of it is needed for one that is killed.
        agent.ask("signal", instance=started.name, signal=9)
    else:
        number = agent.send("shutdown", grace_ms=0)
        ended = agent.exit_of(started.name)
        assert ended["reason"] == "the spawner was shut down"
        agent.answer(number)
    assert spawner.process.wait(30) == 0
    wait_gone(started.pid)
    assert not (spawner.directory / packets.SOCKET_NAME).exists()


def test_second_spawner_of_a_directory_is_refused(spawner: Spawner) -> None:
    if spawner.ordinary and os.geteuid() == 0:
        pytest.skip("the other half of the pair shows it")
    again = subprocess.run(
        [*spawner.command(), "--daemon"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 75
    assert str(spawner.pid) in again.stderr
    assert spawner.agent().ask("hello", version=1)["pid"] == spawner.pid


def test_daemon_returns_once_it_listens_and_lives_on(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    command = [ordinary_python(), "-m", "sth_sandbox.spawner", "--directory", str(directory)]
    sources = Path(packets.__file__).resolve().parent.parent
    done = subprocess.run(
        [*command, "--daemon"],
        env={**os.environ, "PYTHONPATH": str(sources), "SECRET_OF_THE_CALLER": "x"},
        check=True,
        timeout=60,
    )
    assert done.returncode == 0
    agent = Agent(directory)
    hello = agent.ask("hello", version=1)
    process = Path("/proc", str(hello["pid"]))
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert os.getsid(hello["pid"]) == hello["pid"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    agent.ask("shutdown", grace_ms=0)
    agent.close()
    wait_gone(hello["pid"])


@pytest.mark.skipif(os.geteuid() != 0, reason="a directory of another user needs root")
def test_spawner_refuses_the_directory_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    command = [ordinary_python(), "-m", "sth_sandbox.spawner", "--directory", str(tmp_path)]
    sources = Path(packets.__file__).resolve().parent.parent
    done = subprocess.run(
        [*command, "--daemon"],
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert f"belongs to user {NOBODY}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root")
def test_connection_of_another_user_is_turned_away() -> None:
    spawner = Spawner(options=["--agent-uid", "1"])
    os.chmod(spawner.base, 0o755)
    try:
        assert stat.S_IMODE(spawner.directory.stat().st_mode) == 0o711
        path = spawner.directory / packets.SOCKET_NAME
        code = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.connect(sys.argv[1])\n"
            's.send(b\'{"op": "list", "id": 1}\')\n'
            "print(s.recv(1000).decode())\n"
        )
        arguments = [ordinary_python(), "-c", code, str(path)]
        allowed = subprocess.run(
            arguments, user=1, extra_groups=[], cwd="/", capture_output=True, text=True, check=True
        )
        assert json.loads(allowed.stdout)["ok"] is True
        # The socket's own mode keeps others out; without it, the check of the peer does.
        os.chmod(path, 0o777)
        turned_away = subprocess.run(
            arguments, user=2, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
        )
        assert "ok" not in turned_away.stdout
    finally:
        spawner.close()


def hostile_packets(seed: int) -> list[bytes]:
    """Packets of nonsense: bytes, JSON of all shapes, real operations with wrong fields."""
    source = random.Random(seed)
    operations = (
        *("hello", "unpack", "have", "start", "list", "attach", "signal", "close", "remove"),
        *("discard", "", "x"),
    )
    values: tuple[object, ...] = (
        None,
        True,
        -1,
        1e308,
        "",
        "../..",
        "\ud800",
        "a" * 500,
        [],
        {},
        [[[]]],
        2**70,
    )
    names = ("instance", "sha256", "language", "signal", "after", "stream", "version", "limits")
    found = [source.randbytes(source.randrange(1, 200)) for _ in range(30)]
    for _ in range(150):
        message = {name: source.choice(values) for name in names if source.random() < 0.6}
        message |= {"op": source.choice(operations), "id": source.choice(values)}
        found.append(json.dumps(message).encode())
    found += [b"[" * 50_000, b"{}", b'{"op": {}}', b'{"op": "list", "id": {}}', b"\0" * 65536]
    return found


def test_spawner_survives_hostile_packets(spawner: Spawner) -> None:
    agent = spawner.agent()
    running = agent.start(agent.unpack(SLEEPER))
    agent.run(running)
    before = len(os.listdir(f"/proc/{spawner.pid}/fd"))
    with tempfile.TemporaryFile() as file:
        for data in hostile_packets(1):
            count = data[0] % 20 if data else 0
            socket.send_fds(agent.connection, [data], [file.fileno()] * count)
            _, received = packets.receive_packet(agent.connection)
            packets.close_all(received)
    agent.connection.close()
    fresh = spawner.agent()
    (listed,) = fresh.ask("list")["instances"]
    assert listed["running"] is True
    assert len(os.listdir(f"/proc/{spawner.pid}/fd")) <= before
    running.close()


def test_spawner_turns_away_more_connections_than_it_holds(spawner: Spawner) -> None:
    agents = [spawner.agent() for _ in range(40)]
    answered = 0
    for agent in agents:
        try:
            agent.ask("list")
            answered += 1
        except (EOFError, BrokenPipeError):
            pass
    assert 0 < answered < 40
    agents[0].close()
    assert agents[1].ask("list")["instances"] == []


def test_spawner_lets_go_of_an_agent_that_does_not_read(spawner: Spawner) -> None:
    """Its answers are kept up to a bound, its requests wait; the others are served."""
    deaf = packets.connect(spawner.directory)
    deaf.setblocking(False)
    sent = 0
    with deaf, pytest.raises((BlockingIOError, ConnectionError, BrokenPipeError)):
        while sent < 100_000:
            packets.send_packet(deaf, {"op": "hello", "version": 1, "id": sent})
            sent += 1
    assert sent < 100_000
    assert spawner.agent().ask("hello", version=1)["pid"] == spawner.pid
