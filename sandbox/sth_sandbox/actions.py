"""What a new process does to itself, as a list that the spawner prepares.

A child of the zygote shares its parent's memory until one of them writes to it, and running Python
code writes: every function that runs costs a page or two in each Instance for good. So the spawner
works out every call with its arguments, and the child only walks along the list.
"""

import ctypes
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sth_sandbox import syscalls

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# (step, name in CALLS, arguments): an Action that can be sent to another process.
Step = tuple[str, str, tuple[Any, ...]]


class SetupFailed(Exception):
    """A step of the set-up failed. `step`: its name; `reason`: what the system said."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Action(NamedTuple):
    """One call, of a function in CALLS. It raises OSError, or is a C function that returns a
    negative number."""

    step: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]


def steps(actions: Iterable[Action]) -> list[Step]:
    """The same for `perform`, here or in another process."""
    return [(step, _NAMES[id(call)], arguments) for step, call, arguments in actions]


def perform(wanted: Iterable[Step]) -> None:
    """Do them all in order; SetupFailed at the first that fails."""
    for step, name, arguments in wanted:
        try:
            result = CALLS[name](*arguments)
        except OSError as error:
            raise SetupFailed(step, str(error)) from error
        if result is not None and result < 0:
            number = ctypes.get_errno()
            raise SetupFailed(step, f"{name}{_readable(arguments)}: {os.strerror(number)}")


def write_file(path: str, data: bytes) -> None:
    """Make a file, or write to one of /proc; as an action's call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def raise_loopback() -> None:
    """Let the process talk to itself over 127.0.0.1; as an action's call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _readable(arguments: tuple[Any, ...]) -> str:
    parts = [each.decode(errors="replace") for each in arguments if isinstance(each, bytes)]
    return f" {' '.join(part for part in parts if part.isprintable())}".rstrip()


CALLS: dict[str, Callable[..., Any]] = {
    "capset": syscalls.capset,
    "chdir": os.chdir,
    "mkdir": os.mkdir,
    "mount": syscalls.mount,
    "mount_setattr": syscalls.mount_setattr,
    "pivot_root": syscalls.pivot_root,
    "prctl": syscalls.prctl,
    "raise_loopback": raise_loopback,
    "seccomp": syscalls.seccomp,
    "setgroups": os.setgroups,
    "sethostname": syscalls.sethostname,
    "setresgid": os.setresgid,
    "setresuid": os.setresuid,
    "setrlimit": resource.setrlimit,
    "setsid": os.setsid,
    "sigprocmask": syscalls.sigprocmask,
    "symlink": os.symlink,
    "umask": os.umask,
    "umount2": syscalls.umount2,
    "write_file": write_file,
}
# By identity: pointers to C functions have no hash.
_NAMES = {id(call): name for name, call in CALLS.items()}
