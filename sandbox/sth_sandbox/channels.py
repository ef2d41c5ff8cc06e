"""The pipes and sockets between an Instance and whoever reads it.

The spawner keeps the outer ends for as long as the Instance is known, so that an agent may go and
another take over without a byte lost.
"""

import os
import socket
from dataclasses import dataclass

from sth_sandbox.packets import close_all

# The order in which the outer ends are handed out.
STREAMS = ("input", "output", "control", "log", "stdin", "stdout", "stderr")

# The inner ends, by the program's descriptor number.
_INNER = ("stdin", "stdout", "stderr", "input", "output", "control", "log")
_PIPES = ("stdin", "stdout", "stderr")
_BUFFER = 1024 * 1024
_SO_SNDBUFFORCE = 32


@dataclass(slots=True)
class Channels:
    """Plain numbers, not socket objects: a cloned child must not close them by garbage."""

    inner: dict[str, int]
    outer: dict[str, int]

    def inner_descriptors(self) -> list[int]:
        """In the order of the program's descriptors, from 0."""
        return [self.inner[name] for name in _INNER]

    def close_inner(self) -> None:
        """After the start: only the program itself holds them."""
        close_all(self.inner.values())
        self.inner.clear()

    def close(self) -> None:
        self.close_inner()
        close_all(self.outer.values())
        self.outer.clear()


def open_channels(user: int, group: int) -> Channels:
    """All seven, for a program that runs as this user of the host. OSError: none is open."""
    channels = Channels({}, {})
    try:
        for name in _PIPES:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            program_reads = name == "stdin"
            channels.inner[name] = reader if program_reads else writer
            channels.outer[name] = writer if program_reads else reader
            if user != os.geteuid():
                # Else the program could not open /dev/stdout, which leads to this pipe.
                os.fchown(reader, user, group)
        for name in ("input", "output", "control", "log"):
            outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with outer, inner:
                _widen(outer if name == "input" else inner)
                channels.outer[name] = outer.detach()
                channels.inner[name] = inner.detach()
    except BaseException:
        channels.close()
        raise
    return channels


def _widen(sender: socket.socket) -> None:
    """A large send buffer where the machine's limit or our rights allow it."""
    try:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER // 2)
    except PermissionError:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER // 2)
