"""The filter's verdicts on all three machines, by an interpreter of its program."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sandbox import bpf

from sth_sandbox import seccomp
from sth_sandbox.syscall_table import DENIED, LAST_KNOWN, NUMBERS

MACHINES = tuple(NUMBERS)
ALLOW = seccomp.ALLOW
KILL = seccomp.KILL_PROCESS
EPERM = seccomp.deny(errno.EPERM)
ENOSYS = seccomp.deny(errno.ENOSYS)
AFNOSUPPORT = seccomp.deny(errno.EAFNOSUPPORT)
PROTONOSUPPORT = seccomp.deny(errno.EPROTONOSUPPORT)
HIGH = 0xDEAD_0000_0000  # what a program may put in the upper half of an argument
CLOEXEC = 0o2000000


def decide(machine: str, name: str, *arguments: int) -> int:
    architecture = seccomp.AUDIT_ARCHITECTURES[machine]
    return bpf.verdict(seccomp.assemble(machine), architecture, NUMBERS[machine][name], arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("clone", (17,), ALLOW),
        ("clone", (0x003D0F00,), ALLOW),  # a thread
        ("clone", (0x10000000 | 17,), EPERM),
        ("clone", (0x40000000,), EPERM),
        ("clone", (0x00020000,), EPERM),
        ("clone", (HIGH | 0x20000000,), EPERM),
        ("clone", (HIGH | 17,), ALLOW),
        ("clone3", (), ENOSYS),
        ("personality", (0,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0xFFFFFFFFFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, HIGH | 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("mknodat", (3, 0, 0o010644), ALLOW),
        ("mknodat", (3, 0, 0o100644), ALLOW),
        ("mknodat", (3, 0, 0o644), ALLOW),
        ("mknodat", (3, 0, 0o140644), ALLOW),
        ("mknodat", (3, 0, 0o020644), EPERM),
        ("mknodat", (3, 0, 0o060644), EPERM),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (1, 5 | CLOEXEC, 0), ALLOW),
        ("socket", (2, 1 | CLOEXEC, 6), ALLOW),
        ("socket", (10, 2, 17), ALLOW),
        ("socket", (2, 2, 1), ALLOW),
        ("socket", (2, 3, 255), EPERM),
        ("socket", (2, 3 | CLOEXEC, 1), EPERM),
        ("socket", (2, 10, 0), EPERM),
        ("socket", (2, 1, 132), PROTONOSUPPORT),
        ("socket", (16, 3 | CLOEXEC, 0), ALLOW),
        ("socket", (16, 3, 9), PROTONOSUPPORT),
        ("socket", (17, 3, 0), AFNOSUPPORT),
        ("socket", (38, 5, 0), AFNOSUPPORT),
        ("socket", (40, 1, 0), AFNOSUPPORT),
        ("socket", (HIGH | 40, 1, 0), AFNOSUPPORT),
    ],
)
def test_seccomp_decides_by_arguments(
    machine: str, name: str, arguments: tuple[int, ...], wanted: int
) -> None:
    assert decide(machine, name, *arguments) == wanted


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", DENIED)
def test_seccomp_denies(machine: str, name: str) -> None:
    if name in NUMBERS[machine]:
        assert decide(machine, name) == EPERM


# read, write, close, mmap, futex, epoll_pwait, execve, openat, exit_group, getrandom
USUAL = {
    "x86_64": (0, 1, 3, 9, 202, 281, 59, 257, 231, 318),
    "aarch64": (63, 64, 57, 222, 98, 22, 221, 56, 94, 278),
    "arm": (3, 4, 6, 192, 240, 346, 11, 322, 248, 384),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_seccomp_allows_what_programs_need(machine: str) -> None:
    architecture = seccomp.AUDIT_ARCHITECTURES[machine]
    for number in USUAL[machine]:
        assert bpf.verdict(seccomp.assemble(machine), architecture, number) == ALLOW, number


@pytest.mark.parametrize("machine", MACHINES)
def test_seccomp_does_not_know_newer_calls(machine: str) -> None:
    architecture = seccomp.AUDIT_ARCHITECTURES[machine]
    program = seccomp.assemble(machine)
    assert bpf.verdict(program, architecture, LAST_KNOWN) == ALLOW
    for number in (LAST_KNOWN + 1, 1000, 0x0EFFFF):
        assert bpf.verdict(program, architecture, number) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_seccomp_kills_on_another_architecture(machine: str) -> None:
    for architecture in {*seccomp.AUDIT_ARCHITECTURES.values(), 0x40000003, 0}:
        found = bpf.verdict(seccomp.assemble(machine), architecture, 0)
        own = architecture == seccomp.AUDIT_ARCHITECTURES[machine]
        assert (found != KILL) == own


def test_seccomp_kills_x32_calls() -> None:
    architecture = seccomp.AUDIT_ARCHITECTURES["x86_64"]
    program = seccomp.assemble("x86_64")
    for number in (0x40000000, 0x40000000 + 101, -1):
        assert bpf.verdict(program, architecture, number) == KILL


def test_seccomp_lets_arm_set_its_thread_register() -> None:
    architecture = seccomp.AUDIT_ARCHITECTURES["arm"]
    assert bpf.verdict(seccomp.assemble("arm"), architecture, 0x0F0005) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_seccomp_program_can_be_loaded(machine: str) -> None:
    program = seccomp.build(machine)
    assert len(program) <= 4096
    for position, instruction in enumerate(program):
        for jump in (instruction.yes, instruction.no):
            assert jump <= 255
            assert position + 1 + jump < len(program) or jump == 0


@given(
    st.sampled_from(MACHINES),
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.integers(0, 0xFFFFFFFFFFFFFFFF), min_size=6, max_size=6),
)
def test_seccomp_always_decides(machine: str, number: int, arguments: list[int]) -> None:
    architecture = seccomp.AUDIT_ARCHITECTURES[machine]
    found = bpf.verdict(seccomp.assemble(machine), architecture, number, arguments)
    assert found in {ALLOW, KILL, EPERM, ENOSYS, AFNOSUPPORT, PROTONOSUPPORT}


def test_seccomp_tables_differ_where_the_machines_do() -> None:
    assert NUMBERS["x86_64"]["mount"] == 165
    assert NUMBERS["aarch64"]["mount"] == 40
    assert NUMBERS["arm"]["mount"] == 21
    common = {name: number for name, number in NUMBERS["arm"].items() if number >= 424}
    for numbers in NUMBERS.values():
        assert {name: numbers[name] for name in common} == common
