"""A sender and a receiver as processes, and the rate between them."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.benches.certificates import make_certificates

MODULES = {"tls": "peers", "websocket": "peers", "mux": "link_peers"}
MEBIBYTES = 512


class RawLink:
    """`measure` returns bytes per second of one stream of 64 KiB writes over mutual TLS."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._command = [sys.executable, "-m", f"scripts.benches.{MODULES[kind]}"]
        self._directory, self._kind = directory, kind
        self._receiver = subprocess.Popen(
            [*self._command, f"receive-{kind}", str(directory)], stdout=subprocess.PIPE, text=True
        )
        self._port = self._line()

    def measure(self, mebibytes: int = MEBIBYTES) -> float:
        place = (str(self._directory), self._port, str(mebibytes))
        subprocess.run([*self._command, f"send-{self._kind}", *place], check=True)
        count, seconds = self._line().split()
        return int(count) / float(seconds)

    def _line(self) -> str:
        assert self._receiver.stdout is not None
        return self._receiver.stdout.readline().strip()

    def close(self) -> None:
        self._receiver.kill()
        self._receiver.wait()
        assert self._receiver.stdout is not None
        self._receiver.stdout.close()


@contextlib.contextmanager
def raw_link(kind: str) -> Iterator[RawLink]:
    """`kind`: tls (a bare protocol), websocket (websockets -> aiohttp) or mux (ours)."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_certificates(directory)
        link = RawLink(directory, kind)
        try:
            yield link
        finally:
            link.close()
