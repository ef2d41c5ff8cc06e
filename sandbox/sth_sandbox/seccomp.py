"""The filter of system calls over every Instance, assembled here as a BPF program.

libseccomp would need installing and, in Debian 12, does not know the newest calls, which it then
lets through. So the tables are our own, a call newer than they are does not exist for a program
(ENOSYS), and any other calling convention than the process's own ends it.

The kernel keeps a list of calls that a filter always allows, so the length of the chain costs
nothing on those. docs/explanation/sandbox.md says what is denied and why.
"""

import errno
import struct
from dataclasses import dataclass

from sth_sandbox.syscall_table import DENIED, LAST_KNOWN, NUMBERS

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
_X32_BIT = 0x40000000
# ARM has a few calls of its own far above the common numbers: set_tls, cacheflush.
_ARM_PRIVATE = 0x0F0000

# Offsets in struct seccomp_data. All three machines are little-endian: the low half comes first,
# and the kernel itself looks at no more than that half of the arguments tested here.
_NUMBER = 0
_ARCHITECTURE = 4

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_SOCKET_TYPE_MASK = 0xF
_FILE_TYPE_MASK = 0o170000

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET = 1, 2, 5
NETLINK_ROUTE = 0
# Whatever, ICMP, TCP, UDP, ICMPv6. Others load modules of the kernel that few look at.
_INET_PROTOCOLS = (0, 1, 6, 17, 58)
_PERSONALITIES = (0, 0xFFFFFFFF)
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
# Nothing (which means regular), fifo, regular, socket.
_FILE_TYPES = (0, 0o010000, 0o100000, 0o140000)

_LOAD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER_OR_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_AND = 0x54
_RETURN = 0x06


@dataclass(frozen=True, slots=True)
class Instruction:
    """One BPF instruction; `yes` and `no` are how many to skip after a test."""

    code: int
    operand: int
    yes: int = 0
    no: int = 0

    def encode(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.yes, self.no, self.operand)


Program = list[Instruction]


def deny(number: int) -> int:
    """The verdict that makes a call fail with this errno."""
    return _ERRNO | number


def assemble(machine: str) -> bytes:
    """The filter for x86_64, aarch64 or arm, as the kernel takes it."""
    return b"".join(instruction.encode() for instruction in build(machine))


def build(machine: str) -> Program:
    """The filter as instructions. Blocks for one call follow each other and end in a verdict."""
    program = [
        _load(_ARCHITECTURE),
        Instruction(_JUMP_EQUAL, AUDIT_ARCHITECTURES[machine], yes=1),
        _verdict(KILL_PROCESS),
        _load(_NUMBER),
    ]
    if machine == "x86_64":
        program += [Instruction(_JUMP_GREATER_OR_EQUAL, _X32_BIT, no=1), _verdict(KILL_PROCESS)]
    if machine == "arm":
        program += [Instruction(_JUMP_GREATER_OR_EQUAL, _ARM_PRIVATE, no=1), _verdict(ALLOW)]
    program += [
        Instruction(_JUMP_GREATER_OR_EQUAL, LAST_KNOWN + 1, no=1),
        _verdict(deny(errno.ENOSYS)),
    ]
    numbers = NUMBERS[machine]
    for name, block in _conditional_calls().items():
        if name in numbers:
            program += [Instruction(_JUMP_EQUAL, numbers[name], no=len(block)), *block]
    for name in DENIED:
        if name in numbers:
            verdict = _verdict(deny(errno.EPERM))
            program += [Instruction(_JUMP_EQUAL, numbers[name], no=1), verdict]
    program.append(_verdict(ALLOW))
    return program


def _conditional_calls() -> dict[str, Program]:
    """Calls decided by their arguments, or failing in a way of their own: each block decides."""
    return {
        # Its arguments are in memory, out of a filter's sight; the C library then uses clone.
        "clone3": [_verdict(deny(errno.ENOSYS))],
        "clone": [
            _argument(0),
            Instruction(_JUMP_ANY_BIT, _NEW_NAMESPACES, no=1),
            _verdict(deny(errno.EPERM)),
            _verdict(ALLOW),
        ],
        "personality": [_argument(0), *_one_of(_PERSONALITIES)],
        "ioctl": [_argument(1), *_none_of(_TERMINAL_INJECTION)],
        "mknod": _file_types(1),
        "mknodat": _file_types(2),
        "socket": _sockets(),
    }


def _file_types(argument: int) -> Program:
    return [_argument(argument), Instruction(_AND, _FILE_TYPE_MASK), *_one_of(_FILE_TYPES)]


def _sockets() -> Program:
    inet = [
        _argument(1),
        Instruction(_AND, _SOCKET_TYPE_MASK),
        Instruction(_JUMP_EQUAL, SOCK_STREAM, yes=2),
        Instruction(_JUMP_EQUAL, SOCK_DGRAM, yes=1),
        _verdict(deny(errno.EPERM)),
        _argument(2),
        *_one_of(_INET_PROTOCOLS, otherwise=errno.EPROTONOSUPPORT),
    ]
    netlink = [_argument(2), *_one_of((NETLINK_ROUTE,), otherwise=errno.EPROTONOSUPPORT)]
    return [
        _argument(0),
        Instruction(_JUMP_EQUAL, AF_UNIX, no=1),
        _verdict(ALLOW),
        Instruction(_JUMP_EQUAL, AF_NETLINK, no=len(netlink)),
        *netlink,
        Instruction(_JUMP_EQUAL, AF_INET, yes=2),
        Instruction(_JUMP_EQUAL, AF_INET6, yes=1),
        _verdict(deny(errno.EAFNOSUPPORT)),
        *inet,
    ]


def _one_of(values: tuple[int, ...], *, otherwise: int = errno.EPERM) -> Program:
    last = len(values)
    tests = [
        Instruction(_JUMP_EQUAL, value, yes=last - position)
        for position, value in enumerate(values)
    ]
    return [*tests, _verdict(deny(otherwise)), _verdict(ALLOW)]


def _none_of(values: tuple[int, ...]) -> Program:
    last = len(values)
    tests = [
        Instruction(_JUMP_EQUAL, value, yes=last - position)
        for position, value in enumerate(values)
    ]
    return [*tests, _verdict(ALLOW), _verdict(deny(errno.EPERM))]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, offset)


def _argument(index: int) -> Instruction:
    return _load(16 + 8 * index)


def _verdict(value: int) -> Instruction:
    return Instruction(_RETURN, value)
