"""What of the sandbox this machine enforces: found out by entering one.

Every mechanism here is required. One that is missing refuses all Instances, and says how to get
it, unless the operator has allowed to run without a sandbox.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sth_sandbox import syscalls
from sth_sandbox.actions import SetupFailed

Report = dict[str, dict[str, str]]

ENFORCED, FALLBACK, ABSENT = "enforced", "fallback", "absent"

# The steps of the set-up in their order, and the mechanism that each makes sure of.
_STEPS = (
    ("namespaces", "namespaces"),
    ("descriptors", "closed_descriptors"),
    ("user namespace", "unprivileged_user"),
    ("mount namespace", "root_file_system"),
    ("root file system", "root_file_system"),
    ("devices", "root_file_system"),
    ("proc", "process_view"),
    ("pivot_root", "root_file_system"),
    ("host name", "namespaces"),
    ("limits", "resource_limits"),
    ("capabilities", "no_capabilities"),
    ("user", "unprivileged_user"),
    ("no new privileges", "no_new_privileges"),
    ("seccomp", "system_call_filter"),
)
REQUIRED = tuple(dict.fromkeys(mechanism for _, mechanism in _STEPS))

_SYSCTLS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What explains a refusal. `sysctls`: name -> value of those that exist."""

    privileged: bool
    container: bool
    sysctls: Mapping[str, str]


def look_for_facts() -> Facts:
    """Read them from this machine."""
    sysctls = {}
    for name in _SYSCTLS:
        try:
            sysctls[name] = Path("/proc/sys", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
    marks = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    container = any(os.path.exists(mark) for mark in marks)
    return Facts(privileged=os.geteuid() == 0, container=container, sysctls=sysctls)


def make_report(failure: SetupFailed | None, facts: Facts) -> Report:
    """The report after a probe: `failure` is how it ended, None if it entered its sandbox."""
    report = {mechanism: _entry(ENFORCED) for mechanism in REQUIRED}
    if failure is not None:
        _mark_absent(report, failure, facts)
    report["resource_groups"] = _entry(
        ABSENT,
        "limits of memory and processor time by control groups are not used by this version",
    )
    return report


def missing(report: Report) -> list[str]:
    """The required mechanisms that are absent."""
    return [name for name in REQUIRED if report[name]["state"] == ABSENT]


def refusal(report: Report) -> tuple[str, str]:
    """Message and hint for a machine on which something required is missing."""
    first = next(
        name for name in missing(report) if not report[name]["reason"].startswith(_NOT_TRIED)
    )
    message = f"this machine cannot run programs in a sandbox: {report[first]['reason']}"
    return message, report[first]["fix"]


_NOT_TRIED = "not tried"


def _mark_absent(report: Report, failure: SetupFailed, facts: Facts) -> None:
    names = [name for name, _ in _STEPS]
    position = names.index(failure.step) if failure.step in names else 0
    for _, mechanism in _STEPS[position + 1 :]:
        report[mechanism] = _entry(ABSENT, f"{_NOT_TRIED}: {failure.step} failed before")
    culprit = _STEPS[position][1]
    report[culprit] = _entry(ABSENT, str(failure), _fix(failure, facts))


def _fix(failure: SetupFailed, facts: Facts) -> str:
    if not syscalls.supported():
        return f"there is no filter of system calls for {syscalls.machine()}: use another machine"
    if failure.step == "seccomp":
        return "use a kernel with CONFIG_SECCOMP_FILTER, 5.14 or newer"
    if failure.step == "pivot_root":
        return "the root file system must not be an initramfs: boot from a disk or use switch_root"
    if facts.privileged:
        return _fix_for_root(failure, facts)
    if facts.sysctls.get("kernel/unprivileged_userns_clone") == "0":
        return "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    if facts.sysctls.get("user/max_user_namespaces") == "0":
        return "as root: sysctl -w user.max_user_namespaces=10000"
    if facts.sysctls.get("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
    if failure.step == "proc":
        return "the container hides parts of /proc: let it be mounted unmasked, or run as root"
    if facts.container:
        return "let the container make user namespaces (its seccomp profile), or run outside it"
    return "run as root, or enable unprivileged user namespaces"


def _fix_for_root(failure: SetupFailed, facts: Facts) -> str:
    if facts.container:
        return "give the container CAP_SYS_ADMIN and an unmasked /proc, or run outside it"
    if "mount_setattr" in failure.reason:
        return "use a kernel of 5.14 or newer"
    return "run as root with all capabilities, on a kernel of 5.14 or newer"


def _entry(state: str, reason: str = "", fix: str = "") -> dict[str, str]:
    return {"state": state, "reason": reason, "fix": fix}
