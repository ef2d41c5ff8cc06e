"""The demonstration behind `./scripts/demo`: real processes, real data, each step checked."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from scripts.lib.demo_report import Check, Report
from tests.support import netns
from tests.support.system import Agent, System

from sth_client import Client

EXAMPLES = Path(__file__).parents[2] / "examples"
CHUNK = 256 * 1024
TAR_LIMIT = 48 * 1024 * 1024
TOPIC_LINES = 20_000
OCTET = "application/octet-stream"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Material:
    """What flows: `tar`, a tar file of the standard library; `text`, its sources as lines."""

    tar: Path
    tar_sha256: str
    text: bytes


def gather(directory: Path) -> Material:
    """Reads the running Python's standard library into one tar and one text."""
    library = Path(sysconfig.get_paths()["stdlib"])
    path = directory / "library.tar"
    texts: list[bytes] = []
    with tarfile.open(path, "w") as archive:
        for file in sorted(library.rglob("*")):
            if "site-packages" in file.parts or not file.is_file():
                continue
            if archive.offset + file.stat().st_size > TAR_LIMIT:
                continue
            archive.add(file, arcname=str(file.relative_to(library)))
            if file.suffix == ".py":
                texts.append(_lines(file))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Material(path, digest, b"".join(texts))


def _lines(file: Path) -> bytes:
    """A source file's lines, each with its newline, for the transform is of lines of UTF-8."""
    text = file.read_bytes().decode("utf-8", errors="ignore").replace("\r", "")
    return (text if text.endswith("\n") or not text else text + "\n").encode()


class Demo:
    """The steps; each adds to the report and goes on when a check fails."""

    def __init__(self, system: System, material: Material, report: Report) -> None:
        self.report = report
        self._client: Client = system.client()
        self._material = material

    def tar_through(self, example: str, hub: str) -> None:
        """The tar through a pass-through: the digest that comes back must be equal."""
        digest = hashlib.sha256()
        size, seconds = self._stream(example, hub, self._tar_blocks, OCTET, digest.update)
        equal = digest.hexdigest() == self._material.tar_sha256
        self.report.add(
            Check(example, hub, "tar of the standard library, SHA-256", size, 0, seconds, equal)
        )

    def lines_through(self, example: str, hub: str, transform: Callable[[str], str]) -> None:
        """The text through a transform of lines: compared with the same done here."""
        text = self._material.text
        received = bytearray()
        size, seconds = self._stream(example, hub, lambda: _blocks(text), TEXT, received.extend)
        wanted = transform(text.decode()).encode()
        lines = text.count(b"\n")
        self.report.add(
            Check(
                example, hub, "its sources, line by line", size, lines, seconds, received == wanted
            )
        )

    def topic_between(self, source: tuple[str, str], sink: tuple[str, str], topic: str) -> None:
        """One Instance writes a Topic, another reads it on the other Hub."""
        lines = b"".join(b'{"n": %d}\n' % number for number in range(TOPIC_LINES))
        reader = self._start(*sink, input_topic=topic)
        writer = self._start(*source, output_topic=topic)
        received = bytearray()
        began = time.perf_counter()
        with self._client.output(reader) as output:
            self._client.send_input(writer, lines, content_type="application/x-ndjson")
            for chunk in output:
                received += chunk
                if received.count(b"\n") >= TOPIC_LINES:
                    break
        seconds = time.perf_counter() - began
        self.report.add(
            Check(
                f"{source[0]} > {topic} > {sink[0]}",
                f"{source[1]} > {sink[1]}",
                "records, in order, none twice",
                len(received),
                TOPIC_LINES,
                seconds,
                _numbers(received) == list(range(TOPIC_LINES)),
            )
        )
        self._client.kill(reader)

    def _start(
        self, example: str, hub: str, *, input_topic: str = "", output_topic: str = ""
    ) -> str:
        sequence = self._client.upload(EXAMPLES / example)
        return self._client.start(
            sequence, hub=hub, input_topic=input_topic, output_topic=output_topic
        )

    def _stream(
        self,
        example: str,
        hub: str,
        blocks: Callable[[], Iterator[bytes]],
        content_type: str,
        take: Callable[[bytes], object],
    ) -> tuple[int, float]:
        instance = self._start(example, hub)
        failures: list[Exception] = []

        def feed() -> None:
            try:
                self._client.send_input(instance, blocks(), content_type=content_type)
            except Exception as error:
                failures.append(error)

        size = 0
        began = time.perf_counter()
        with self._client.output(instance) as output:
            sender = threading.Thread(target=feed)
            sender.start()
            for chunk in output:
                size += len(chunk)
                take(chunk)
        sender.join()
        if failures:
            raise failures[0]
        return size, time.perf_counter() - began

    def _tar_blocks(self) -> Iterator[bytes]:
        with self._material.tar.open("rb") as file:
            while block := file.read(CHUNK):
                yield block


def _blocks(text: bytes) -> Iterator[bytes]:
    for start in range(0, len(text), CHUNK):
        yield text[start : start + CHUNK]


def _numbers(lines: bytearray) -> list[int]:
    return [int(json.loads(line)["n"]) for line in lines.splitlines()]


@contextlib.contextmanager
def second_machine(report: Report) -> Iterator[netns.NetworkNamespace | None]:
    """A network namespace for the second agent, or None where there can be none."""
    reason = netns.unavailable()
    if reason:
        report.say(f"the second machine is an agent on loopback (no namespace: {reason})")
        yield None
        return
    with netns.NetworkNamespace() as namespace:
        report.say(
            "the second machine is a network namespace: "
            f"it dials {namespace.outside}, nobody dials it"
        )
        yield namespace


def join_edge(system: System, namespace: netns.NetworkNamespace | None, report: Report) -> Agent:
    """`sth-agent join` and `run` on the second machine."""
    agent = system.join_agent("edge", prefix=namespace.command() if namespace else ())
    if namespace is not None:
        report.require("edge cannot be dialled", not netns.can_be_dialled(namespace))
    return agent


def run(directory: Path, report: Report) -> None:
    material = gather(directory)
    with second_machine(report) as namespace:
        host = namespace.outside if namespace else "127.0.0.1"
        system = System(directory / "system", listen_agents=f"{host}:0", advertise=(host,))
        with system:
            report.say(f"sth-broker up: {system.url}, with its built-in Hub 'local'")
            join_edge(system, namespace, report)
            report.say("sth-agent join: Hub 'edge' is online")
            show(Demo(system, material, report))
        report.require("nothing is left running", not processes_below(directory))


def show(demo: Demo) -> None:
    """Every Sequence of the demonstration, on both machines."""
    demo.tar_through("pass-through", "edge")
    demo.lines_through("shout-lines", "edge", str.upper)
    demo.lines_through("shout-lines", "local", str.upper)
    if shutil.which("node"):
        demo.tar_through("node-pass", "edge")
        demo.lines_through("node-lines", "edge", str.upper)
    else:
        demo.report.say("Node.js is not here; going on with Python alone")
    demo.topic_between(("relay", "local"), ("relay", "edge"), "readings")


def processes_below(directory: Path) -> list[int]:
    """Processes whose command line or working directory names the demonstration's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def main() -> int:
    console = Console(stderr=False)
    report = Report(console)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sth-demo-") as name:
        try:
            run(Path(name), report)
        except Exception as error:
            report.require(f"{type(error).__name__}: {error}", False)
            report.show_logs(Path(name))
    report.show(time.perf_counter() - began)
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
