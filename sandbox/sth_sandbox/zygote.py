"""Starting a process in a sandbox of its own, straight from the spawner by clone.

The child is process 1 of its pid namespace. It builds its own sandbox, reports over a pipe that it
is complete or which step failed, and only then runs what it was started for, which never returns.
"""

import ctypes
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
from sth_sandbox.actions import Action, SetupFailed, perform
from sth_sandbox.filesystem import DATA, Tree, root_actions

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
_MAX_DESCRIPTOR = (1 << 31) - 1
# As ps shows it.
_name = ctypes.create_string_buffer(b"sth-instance")


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


def setup_actions(plan: Plan) -> list[Action]:
    """Everything that the new process does before it is sandboxed, in order."""
    tree = plan.tree
    actions = [credentials.die_with_parent(), *_COMMON_ACTIONS]
    if plan.user_namespace:
        actions += credentials.inner_user_actions(os.geteuid(), os.getegid())
    if tree is not None:
        name = tree.host_name.encode()
        actions += root_actions(tree)
        actions.append(Action("host name", syscalls.sethostname, (name, len(name))))
        if plan.loopback:
            actions.append(Action("loopback", _raise_loopback, ()))
    actions += credentials.limit_actions()
    if tree is None:
        actions.append(Action("limits", os.chdir, ("/",)))
    else:
        actions += credentials.drop_actions(
            plan.user, plan.group, change_user=not plan.user_namespace
        )
        # Its home, which only now it may enter.
        actions.append(Action("user", os.chdir, (DATA,)))
    return actions


def launch(plan: Plan) -> tuple[int, int]:
    """Start it: (process id, descriptor of its report).

    The report ends (EOF) when the process runs or has failed; `check_report` makes sense of it.
    SetupFailed: the namespaces themselves were refused.
    """
    flags = namespace_flags(plan)
    actions = setup_actions(plan)
    # Where the table of system calls does not know this machine, nothing is sandboxed anyway.
    last_actions = credentials.filter_actions() if syscalls.supported() else []
    report, child_report = os.pipe2(os.O_CLOEXEC)
    try:
        pid = syscalls.clone_process(flags)
    except OSError as error:
        os.close(report)
        os.close(child_report)
        raise SetupFailed("namespaces", str(error)) from error
    if pid == 0:
        _become(plan, actions, last_actions, child_report)
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


def _become(plan: Plan, actions: list[Action], last_actions: list[Action], report: int) -> None:
    """In the child, for good: no exception may unwind into the spawner's own code."""
    try:
        report = _arrange_descriptors(plan.descriptors, report)
        # The spawner's log is closed, and not this program's.
        logging.root.handlers.clear()
        perform(actions)
        _install_filter(plan, last_actions)
        os.write(report, _READY)
        if isinstance(plan.run, Executable):
            _execute(plan.run, plan.environment)
        else:
            os.close(report)
            report = -1
            _set_environment(plan.environment)
            plan.run()
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
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _MOVED) for each in (*descriptors, report)]
    place = len(descriptors)
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number, inheritable=number < place)
    os.closerange(place + 1, _MAX_DESCRIPTOR)
    return place


def _install_filter(plan: Plan, actions: list[Action]) -> None:
    try:
        perform(actions)
    except SetupFailed:
        # Without a sandbox, by the operator's choice, the filter is only better than nothing.
        if plan.tree is not None:
            raise


def _set_environment(environment: Mapping[str, str]) -> None:
    """The spawner's own has nothing else in it and, mostly, the same values already."""
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _execute(program: Executable, environment: Mapping[str, str]) -> None:
    # Python ignores it, and what is ignored stays ignored in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(program.path, list(program.arguments), dict(environment))
    except OSError as error:
        raise SetupFailed("exec", str(error)) from error


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _say(report: int, name: str, reason: str) -> None:
    try:
        os.write(report, json.dumps({"step": name, "reason": reason[:2000]}).encode())
    except OSError:
        pass


_COMMON_ACTIONS = (
    Action("set-up", os.setsid, ()),
    # The spawner gets its signals by descriptor, blocked.
    Action("set-up", syscalls.sigprocmask, syscalls.NO_SIGNAL_BLOCKED),
    # The spawner's own hides everything.
    Action("set-up", os.umask, (0o022,)),
    Action("set-up", syscalls.prctl, (syscalls.PR_SET_NAME, ctypes.addressof(_name), 0, 0, 0)),
)
