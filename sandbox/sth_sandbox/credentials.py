"""Giving up every privilege, in the one order that works, as actions.

Before: a process that may do everything to its own namespaces. After: an unprivileged user that
can never gain anything again, under the filter of system calls.
"""

import ctypes
import functools
import os
import resource
import signal
import struct

from sth_sandbox import seccomp, syscalls
from sth_sandbox.actions import Action, write_file

# Host user ids for Instances of a root spawner, one each: far above those that people, packages,
# systemd's dynamic users and subuid ranges use. "ST" in the upper half.
FIRST_USER = 0x5354_0000
USERS = 0xFFFF
# The one that unpacks packages; no Instance ever gets it.
UNPACK_USER = FIRST_USER + USERS
# The user inside the user namespace of an ordinary user's Instance.
INNER_USER = 1000

# NOROOT, and locked; NO_SETUID_FIXUP and KEEP_CAPS locked off; no ambient capabilities, locked.
_SECURE_BITS = 1 | 2 | 8 | 32 | 64 | 128
_CAPABILITY_VERSION_3 = 0x20080522
_MAX_DESCRIPTORS = 4096
_MAX_PROCESSES = 512
# Not 0: that stops core files but not a core_pattern that pipes to a program of the host. The
# kernel takes 1 as "neither".
_MAX_CORE = 1


def inner_user_actions(user: int, group: int) -> list[Action]:
    """In a new user namespace: become INNER_USER, who is `user` outside."""
    files = (
        ("setgroups", "deny"),
        ("uid_map", f"{INNER_USER} {user} 1"),
        ("gid_map", f"{INNER_USER} {group} 1"),
    )
    return [
        Action("user namespace", write_file, (f"/proc/self/{name}", text.encode()))
        for name, text in files
    ]


def die_with_parent() -> Action:
    """SIGKILL when the spawner ends. A change of user clears it, so it is armed again after."""
    return _prctl("user", syscalls.PR_SET_PDEATHSIG, int(signal.SIGKILL))


@functools.cache
def limit_actions() -> list[Action]:
    """Plain resource limits, never above what the spawner has itself."""
    actions = []
    for kind, wanted in (
        (resource.RLIMIT_CORE, _MAX_CORE),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, _MAX_PROCESSES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        actions.append(Action("limits", resource.setrlimit, (kind, (value, value))))
    return actions


def drop_actions(user: int, group: int, *, change_user: bool) -> list[Action]:
    """Lose all capabilities for good, and become `user` unless the process is that already."""
    actions = list(_bounding_actions())
    step = "user"
    if change_user:
        actions += [
            Action(step, os.setgroups, ([],)),
            Action(step, os.setresgid, (group, group, group)),
            Action(step, os.setresuid, (user, user, user)),
        ]
    return actions + _final_drops()


@functools.cache
def filter_actions() -> list[Action]:
    """No new privileges, then the filter: the last steps before foreign code."""
    return [_prctl("no new privileges", syscalls.PR_SET_NO_NEW_PRIVS, 1), _filter()]


@functools.cache
def _bounding_actions() -> list[Action]:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    step = "capabilities"
    drops = [_prctl(step, syscalls.PR_CAPBSET_DROP, number) for number in range(last + 1)]
    return [*drops, _prctl(step, syscalls.PR_SET_SECUREBITS, _SECURE_BITS)]


@functools.cache
def _final_drops() -> list[Action]:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return [
        Action("user", syscalls.capset, (header, bytes(24))),
        # Without it, /proc/self would belong to root, and /dev/stdout could not be opened.
        _prctl("user", syscalls.PR_SET_DUMPABLE, 1),
        die_with_parent(),
    ]


def _filter() -> Action:
    program = seccomp.assemble(syscalls.machine())
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 length, then an aligned pointer.
    structure = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _filter_buffers.append(buffer)
    arguments = (syscalls.SECCOMP, syscalls.SECCOMP_SET_MODE_FILTER, 0, structure)
    return Action("seccomp", syscalls.seccomp, arguments)


# What a pointer in an action leads to.
_filter_buffers: list[object] = []


def _prctl(step: str, option: int, argument: int) -> Action:
    return Action(step, syscalls.prctl, (option, argument, 0, 0, 0))
