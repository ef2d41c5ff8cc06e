"""A network namespace that can dial out to its maker's host and cannot be dialled.

A veth pair joins it to this machine; a rule inside drops every connection that comes from outside.
The addresses are of 198.18.0.0/15, which RFC 2544 keeps for tests of this kind. Needs root,
iproute2 and iptables.
"""

import itertools
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

DIAL_SECONDS = 1.0

_numbers = itertools.count(1)


class NetworkNamespace:
    """`outside`: this machine's address as the namespace sees it; `inside`: the namespace's own."""

    def __init__(self) -> None:
        number = next(_numbers)
        process = os.getpid()
        self.name = f"sth-{process}-{number}"
        self._device = f"sth{process % 100000}o{number}"
        self._peer = f"sth{process % 100000}i{number}"
        network = f"198.{18 + process % 2}.{process // 2 % 256}"
        self.outside = f"{network}.{4 * (number % 60) + 1}"
        self.inside = f"{network}.{4 * (number % 60) + 2}"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` inside."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def _make(self) -> None:
        device, peer, name = self._device, self._peer, self.name
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", device, "type", "veth", "peer", "name", peer, "netns", name)
        _run("ip", "address", "add", f"{self.outside}/30", "dev", device)
        _run("ip", "link", "set", device, "up")
        inside = ("ip", "-n", name)
        _run(*inside, "address", "add", f"{self.inside}/30", "dev", peer)
        _run(*inside, "link", "set", "lo", "up")
        _run(*inside, "link", "set", peer, "up")
        _run(*inside, "route", "add", "default", "via", self.outside)
        rule = ("-A", "INPUT", "-i", peer, "-p", "tcp", "--syn", "-j", "DROP")
        _run(*self.command("iptables", *rule))

    def _remove(self) -> None:
        for command in (
            ("ip", "netns", "delete", self.name),
            ("ip", "link", "delete", self._device),
        ):
            subprocess.run(command, check=False, capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def can_be_dialled(namespace: NetworkNamespace) -> bool:
    """Whether a connection to a listener inside comes through; it is made sure that one listens."""
    listener = (
        "import socket, sys; server = socket.create_server(('0.0.0.0', 0));"
        "print(server.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        namespace.command(sys.executable, "-c", listener),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            socket.create_connection((namespace.inside, port), DIAL_SECONDS).close()
        except TimeoutError:
            return False
        finally:
            process.kill()
    return True


def unavailable() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        with NetworkNamespace():
            return ""
    except (RuntimeError, OSError) as error:
        return str(error)
