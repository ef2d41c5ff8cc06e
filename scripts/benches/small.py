"""start and idle: how soon a program answers, and what waiting costs."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benches.load import Target
from scripts.benches.measure import (
    MIB,
    Figure,
    alternate,
    bare_node,
    bare_python,
    processor_seconds,
    smaps,
)
from scripts.benches.sequences import NODE_SOURCE, PYTHON_SOURCE, pack
from scripts.benches.through import running_system
from tests.support.system import System

from sth_sandbox import packets

START_ROUNDS = 15
IDLE_INSTANCES = 50
IDLE_SECONDS = 20


def start() -> Iterator[Figure]:
    with running_system() as system:
        yield from _start_of(
            system, "python3", PYTHON_SOURCE, [bare_python(), "-I", "-S", "-c", "pass"], 2.5
        )
        node = bare_node()
        if node:
            yield from _start_of(system, "node", NODE_SOURCE, [node, "-e", "0"], 2.0)


def _start_of(
    system: System, language: str, source: str, command: list[str], target: float
) -> Iterator[Figure]:
    with system.client() as client:
        sequence = client.upload(pack(f"start-{language}", source, language=language))

        def ours() -> float:
            began = time.perf_counter()
            instance = client.start(sequence)
            response = Target(f"{system.url}/api/v1", system.token, instance).open_output()
            first = response.read1(100)
            elapsed = time.perf_counter() - began
            response.close()
            if not first:
                raise RuntimeError("no output")
            client.kill(instance)
            return elapsed

        def bare() -> float:
            began = time.perf_counter()
            subprocess.run(command, check=True)
            return time.perf_counter() - began

        ours(), bare()
        value, against = alternate(START_ROUNDS, ours, bare)
    yield Figure(
        f"start {language}",
        f"{value * 1000:.1f} ms",
        f"{' '.join(command)}: {against * 1000:.1f} ms",
        f"{value / against:.2f}",
        f"at most {target}",
        value / against <= target,
    )


def idle() -> Iterator[Figure]:
    with running_system() as system:
        agent = system.agents[0]
        assert agent.process is not None
        agent_id = agent.process.popen.pid
        spawner_id = _spawner(agent.state)
        yield _memory("idle agent", "RSS", smaps(agent_id)["Rss"], 32)
        both = sum(smaps(each)["Pss"] for each in (spawner_id, *_children(spawner_id)))
        yield _memory("idle spawner and zygote", "PSS", both, 20)
        with system.client() as client:
            sequence = client.upload(pack("idle", PYTHON_SOURCE))
            instances = [client.start(sequence) for _ in range(IDLE_INSTANCES)]
            processes = [client.health(each).process_id or 0 for each in instances]
        sizes = [smaps(each)["Pss"] for each in processes]
        yield _memory(f"idle Instance of {IDLE_INSTANCES}", "PSS", sum(sizes) // len(sizes), 4)
        began = time.perf_counter()
        before = [processor_seconds(each) for each in (agent_id, spawner_id)]
        time.sleep(IDLE_SECONDS)
        elapsed = time.perf_counter() - began
        after = [processor_seconds(each) for each in (agent_id, spawner_id)]
        share = [(late - early) / elapsed * 100 for early, late in zip(before, after, strict=True)]
        yield Figure(
            "idle CPU",
            f"agent {share[0]:.2f} %, spawner {share[1]:.2f} % of a core",
            f"{IDLE_INSTANCES} idle Instances",
            "",
            "each below 0.5 %",
            max(share) < 0.5,
        )


def _spawner(state: Path) -> int:
    """The process behind the spawner's socket."""
    with packets.connect(state) as connection:
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[0])


def _children(process_id: int) -> list[int]:
    """Before any Instance is started: the zygote."""
    path = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(each) for each in path.read_text(encoding="ascii").split()]


def _memory(name: str, kind: str, value: int, limit: int) -> Figure:
    text = f"{value / MIB:.1f} MiB {kind}"
    return Figure(name, text, "", "", f"at most {limit} MiB", value <= limit * MIB)
