"""echo, lines, pingpong: HTTP in, through broker, link, sandbox and function, HTTP out."""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benches.load import Target, ping_pong, stream_through
from scripts.benches.measure import MIB, Figure, alternate, percentile, smaps
from scripts.benches.raw import raw_link
from scripts.benches.sequences import PYTHON_LINES, PYTHON_PASS, pack
from tests.support.system import System

ECHO_BLOCK = bytes(range(256)) * 1024
ECHO_TIMES = 1024
LONG_TIMES = 8192
LINE = b"x" * 99 + b"\n"
LINES_BLOCK = LINE * 2500
LINES_TIMES = 1200
PINGS = 3000


@contextlib.contextmanager
def running_system() -> Iterator[System]:
    """A broker and one machine joined over the link, in a directory of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="sth-bench-") as name,
        System(Path(name), local_hub=False) as system,
    ):
        system.join_agent("edge")
        yield system


def new_instance(system: System, name: str, source: str, *, language: str = "python3") -> Target:
    """Upload and start; where its streams are."""
    with system.client() as client:
        sequence = client.upload(pack(name, source, language=language))
        instance = client.start(sequence)
    return Target(f"{system.url}/api/v1", system.token, instance)


def echo() -> Iterator[Figure]:
    size = len(ECHO_BLOCK) * ECHO_TIMES
    with running_system() as system, raw_link("tls") as raw:

        def ours() -> float:
            target = new_instance(system, "pass", PYTHON_PASS)
            return size / stream_through(target, ECHO_BLOCK, ECHO_TIMES, "application/octet-stream")

        ours()
        rate, bare = alternate(5, ours, raw.measure)
        yield Figure(
            "echo",
            f"{rate / 1e6:.0f} MB/s",
            f"raw TLS {bare / 1e6:.0f} MB/s",
            f"{rate / bare:.3f}",
            "at least 0.10 (0.15 wanted)",
            rate / bare >= 0.10,
        )
        yield _flat_memory(system)


def _flat_memory(system: System) -> Figure:
    """Resident memory of broker and agent while 2 GB stream through."""
    assert system.broker is not None
    agent = system.agents[0].process
    assert agent is not None
    processes = {"broker": system.broker.popen.pid, "agent": agent.popen.pid}
    before = {name: smaps(pid)["Rss"] for name, pid in processes.items()}
    peak = dict(before)
    target = new_instance(system, "pass", PYTHON_PASS)
    worker = threading.Thread(
        target=stream_through,
        args=(target, ECHO_BLOCK, LONG_TIMES, "application/octet-stream"),
    )
    worker.start()
    while worker.is_alive():
        for name, pid in processes.items():
            peak[name] = max(peak[name], smaps(pid)["Rss"])
        time.sleep(0.1)
    worker.join()
    growth = {name: (peak[name] - before[name]) / MIB for name in processes}
    return Figure(
        "echo 2 GB",
        ", ".join(f"{name} +{value:.1f} MiB" for name, value in growth.items()),
        ", ".join(f"{name} {value / MIB:.1f} MiB before" for name, value in before.items()),
        "",
        "flat on both ends",
        max(growth.values()) < 16,
    )


def lines() -> Iterator[Figure]:
    with running_system() as system:
        count = LINES_TIMES * len(LINES_BLOCK) // len(LINE)

        def ours() -> float:
            target = new_instance(system, "lines", PYTHON_LINES)
            return count / stream_through(target, LINES_BLOCK, LINES_TIMES, "text/plain")

        ours()
        rate, bare = alternate(5, ours, bare_lines)
        yield Figure(
            "lines",
            f"{rate / 1000:.0f}k lines/s",
            f"bare async generator {bare / 1e6:.1f}M lines/s",
            f"{rate / bare:.2f}",
            "at least 800k lines/s",
            rate >= 800_000,
        )


BARE_LINES = """
import asyncio, time
data = ["x" * 99 + "\\n"] * 2_000_000
async def source():
    for line in data: yield line
async def run(input):
    async for line in input: yield line
async def main():
    started = time.perf_counter()
    async for _ in run(source()): pass
    print(len(data) / (time.perf_counter() - started))
asyncio.run(main())
"""


def bare_lines() -> float:
    """Lines per second of an async generator over lines in memory, nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", BARE_LINES], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def pingpong() -> Iterator[Figure]:
    with running_system() as system:
        target = new_instance(system, "lines", PYTHON_LINES)
        times = ping_pong(target, LINE, PINGS, "text/plain")[100:]
        half, tail = percentile(times, 0.5) * 1000, percentile(times, 0.99) * 1000
        yield Figure(
            "pingpong",
            f"p50 {half:.2f} ms, p99 {tail:.2f} ms",
            "",
            "",
            "p50 at most 0.6 ms",
            half <= 0.6,
        )
