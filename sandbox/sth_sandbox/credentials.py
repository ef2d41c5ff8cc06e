"""Giving up every privilege, in the one order that works.

Before: a process that may do everything to its own namespaces. After: an unprivileged user that
can never gain anything again, under the filter of system calls.
"""

import os
import resource
import signal

from sth_sandbox import seccomp, syscalls
from sth_sandbox.steps import step

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
_MAX_DESCRIPTORS = 4096
_MAX_PROCESSES = 512


def map_inner_user(user: int, group: int) -> None:
    """In a new user namespace: become INNER_USER, who is `user` outside."""
    with step("user namespace"):
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{INNER_USER} {user} 1"),
            ("gid_map", f"{INNER_USER} {group} 1"),
        ):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)


def die_with_parent() -> None:
    """SIGKILL when the spawner ends. A change of user clears it, so it is armed again after."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def set_limits() -> None:
    """Plain resource limits, never above what the spawner has itself."""
    for kind, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, _MAX_PROCESSES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


def drop_privileges(user: int, group: int) -> None:
    """Become this user for good, without a capability. Equal ids: only the capabilities go."""
    with step("capabilities"):
        for capability in range(_last_capability() + 1):
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, _SECURE_BITS)
    with step("user"):
        if os.getuid() != user or os.getgid() != group:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        syscalls.drop_all_capabilities()
        # Without it, /proc/self would belong to root, and /dev/stdout could not be opened.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        die_with_parent()


def install_filter() -> None:
    """No new privileges, then the filter: the last steps before foreign code."""
    with step("no new privileges"):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    with step("seccomp"):
        syscalls.install_filter(seccomp.assemble(syscalls.machine()))


def _last_capability() -> int:
    """From /proc while the host's is still there; the kernel refuses numbers it does not know."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())
