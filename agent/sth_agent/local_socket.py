"""Unix sockets by path, of any length: the kernel's 107 bytes are avoided through /proc/self/fd."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A listening stream socket, mode 0600; one that a dead process left behind is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _through_directory(path, listener.bind)
        path.chmod(0o600)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, *, timeout: float) -> socket.socket:
    """A connection, or the OSError that says why there is none."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(timeout)
    try:
        _through_directory(path, stream.connect)
    except BaseException:
        stream.close()
        raise
    return stream


def _through_directory(path: Path, operation: Callable[[str], object]) -> None:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        operation(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
