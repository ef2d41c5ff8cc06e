"""Starting a process in a sandbox of its own, straight from the spawner by clone.

The child is process 1 of its pid namespace. It builds its own sandbox, reports over a pipe that it
is complete or which step failed, and only then runs what it was started for, which never returns.
"""

import fcntl
import json
import logging
import os
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sth_sandbox import credentials, syscalls
from sth_sandbox.filesystem import Tree, build_root
from sth_sandbox.steps import SetupFailed, step

_READY = b"ready\n"
_EXIT_SETUP_FAILED = 20
# Descriptors are first moved above this number, so that placing one never closes another.
_MOVED = 64

_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Executable:
    """A program to become: the file, and its arguments with its own name first."""

    path: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One process to start.

    `tree`: its root file system, or None for a process without a sandbox (the operator's choice).
    `user`, `group`: whom it becomes, inside its user namespace if it has one.
    `descriptors`: become its 0, 1, 2 and so on; nothing else stays open.
    `run`: what it does in the end: become a program, or call what never returns.
    """

    tree: Tree | None
    user: int
    group: int
    user_namespace: bool
    environment: Mapping[str, str]
    descriptors: Sequence[int]
    run: Executable | Callable[[], object]
    loopback: bool = False
    name: str = "sth-instance"


def namespace_flags(plan: Plan) -> int:
    """The CLONE_NEW* flags of this plan."""
    if plan.tree is None:
        return 0
    flags = _NAMESPACES
    if os.path.exists("/proc/self/ns/cgroup"):
        flags |= syscalls.CLONE_NEWCGROUP
    if plan.user_namespace:
        flags |= syscalls.CLONE_NEWUSER
    return flags


def launch(plan: Plan) -> tuple[int, int]:
    """Start it: (process id, descriptor of its report).

    The report ends (EOF) when the process runs or has failed; `check_report` makes sense of it.
    SetupFailed: the namespaces themselves were refused.
    """
    outer_user, outer_group = os.geteuid(), os.getegid()
    report, child_report = os.pipe2(os.O_CLOEXEC)
    try:
        with step("namespaces"):
            pid = syscalls.clone_process(namespace_flags(plan))
    except BaseException:
        os.close(report)
        os.close(child_report)
        raise
    if pid == 0:
        _become(plan, child_report, outer_user, outer_group)
    os.close(child_report)
    return pid, report


def check_report(data: bytes) -> None:
    """SetupFailed unless these bytes, all that a process reported, say that it runs."""
    if data == _READY:
        return
    try:
        failure = json.loads(data.removeprefix(_READY))
        name, reason = str(failure["step"]), str(failure["reason"])
    except (ValueError, KeyError, TypeError):
        name, reason = "set-up", "the process ended while its sandbox was made"
    raise SetupFailed(name, reason)


def _become(plan: Plan, report: int, outer_user: int, outer_group: int) -> None:
    """In the child, for good: no exception may unwind into the spawner's own code."""
    try:
        report = _arrange_descriptors(plan.descriptors, report)
        _forget_spawner(plan)
        if plan.user_namespace:
            credentials.map_inner_user(outer_user, outer_group)
        _enter(plan)
        os.write(report, _READY)
        if isinstance(plan.run, Executable):
            _execute(plan.run, plan.environment)
        os.close(report)
        report = -1
        plan.run()  # type: ignore[operator]
    except SetupFailed as failure:
        _say(report, failure.step, failure.reason)
    except BaseException as error:
        if report < 0:
            os.write(2, traceback.format_exc().encode(errors="replace"))
        else:
            _say(report, "set-up", f"{type(error).__name__}: {error}")
    finally:
        os._exit(_EXIT_SETUP_FAILED)


def _arrange_descriptors(descriptors: Sequence[int], report: int) -> int:
    """Put them at 0, 1, 2 ..., the report after them, and close the rest; the report's number."""
    with step("descriptors"):
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _MOVED) for each in descriptors]
        moved_report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, _MOVED)
        for number, descriptor in enumerate(moved):
            os.dup2(descriptor, number)
        place = len(moved)
        os.dup2(moved_report, place, inheritable=False)
        os.closerange(place + 1, os.sysconf("SC_OPEN_MAX"))
        return place


def _forget_spawner(plan: Plan) -> None:
    """Take off what the spawner's process was: signals, log, session, environment."""
    credentials.die_with_parent()
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _HANDLED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    logging.getLogger().handlers.clear()
    os.environ.clear()
    os.environ.update(plan.environment)
    syscalls.prctl(syscalls.PR_SET_NAME, plan.name.encode()[:15])


def _enter(plan: Plan) -> None:
    tree = plan.tree
    if tree is not None:
        build_root(tree)
        with step("host name"):
            syscalls.set_host_name(tree.host_name)
        if plan.loopback:
            _raise_loopback()
    with step("limits"):
        credentials.set_limits()
    if tree is not None:
        credentials.drop_privileges(plan.user, plan.group)
        os.chdir("/")
    credentials.install_filter()


def _raise_loopback() -> None:
    with step("loopback"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _execute(program: Executable, environment: Mapping[str, str]) -> None:
    # Python ignores it, and what is ignored stays ignored in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with step("exec"):
        os.execve(program.path, list(program.arguments), dict(environment))


def _say(report: int, name: str, reason: str) -> None:
    try:
        os.write(report, json.dumps({"step": name, "reason": reason[:2000]}).encode())
    except OSError:
        pass
