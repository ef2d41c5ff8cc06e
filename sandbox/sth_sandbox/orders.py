"""What the spawner tells the zygote: one process to start, as bytes.

Everything is worked out before it is sent, for the reason that `actions` gives. The bytes are made
and read by the same interpreter, and hold bytes and numbers: marshal does that, JSON does not.
"""

import ctypes
import marshal
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sth_sandbox import credentials, syscalls
from sth_sandbox.actions import Action, Step, raise_loopback, steps
from sth_sandbox.filesystem import DATA, Tree, root_actions

_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)
# As ps shows it.
_name = ctypes.create_string_buffer(b"sth-instance")


class Executable(NamedTuple):
    """A program to become: the file, and its arguments with its own name first."""

    path: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One process to start.

    `tree`: its root file system, or None for a process without a sandbox (the operator's choice).
    `user`, `group`: whom it becomes, inside its user namespace if it has one.
    `descriptors`: become its 0, 1, 2 and so on; nothing else stays open.
    `run`: what it does in the end: become a program, or be one of the zygote's own, by name.
    """

    tree: Tree | None
    user: int
    group: int
    user_namespace: bool
    environment: Mapping[str, str]
    descriptors: Sequence[int]
    run: Executable | str
    loopback: bool = False


class Order(NamedTuple):
    """A Plan as calls to make: `steps`, and then `last_steps`."""

    sandboxed: bool
    steps: list[Step]
    last_steps: list[Step]
    environment: dict[str, str]
    run: Executable | str

    def encode(self) -> bytes:
        """For a process that was forked from this one: pointers in it stay valid there."""
        run = tuple(self.run) if isinstance(self.run, Executable) else self.run
        fields: Any = (*self[:-1], run)
        return marshal.dumps(fields)

    @classmethod
    def decode(cls, data: bytes) -> "Order":
        order = cls._make(marshal.loads(data))
        return order if isinstance(order.run, str) else order._replace(run=Executable(*order.run))


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


def order_for(plan: Plan) -> Order:
    """All that the new process will do."""
    return Order(
        sandboxed=plan.tree is not None,
        steps=steps(setup_actions(plan)),
        # Where the table of system calls does not know this machine, nothing is sandboxed anyway.
        last_steps=steps(credentials.filter_actions() if syscalls.supported() else ()),
        environment=dict(plan.environment),
        run=plan.run,
    )


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
            actions.append(Action("loopback", raise_loopback, ()))
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


_COMMON_ACTIONS = (
    Action("set-up", os.setsid, ()),
    # The zygote blocks all signals.
    Action("set-up", syscalls.sigprocmask, syscalls.NO_SIGNAL_BLOCKED),
    # The spawner's own hides everything.
    Action("set-up", os.umask, (0o022,)),
    Action("set-up", syscalls.prctl, (syscalls.PR_SET_NAME, ctypes.addressof(_name), 0, 0, 0)),
)
