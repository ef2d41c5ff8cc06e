"""The few system calls that Python 3.11 has no function for, by ctypes.

Each raises OSError that names the call. Numbers are those of the kernel's own tables.
"""

import ctypes
import os
import platform
import struct
from typing import NoReturn

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock held: a child made by clone starts inside the call, and the lock
# must be its own when it comes out.
_python = ctypes.PyDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
_PR_GET_TID_ADDRESS = 40
_CAPABILITY_VERSION_3 = 0x20080522

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2

MOUNT_SETATTR = 442


def machine() -> str:
    """x86_64, aarch64 or arm: what this process is, whatever the kernel is.

    A 64-bit kernel on a Raspberry Pi may run 32-bit programs: uname does not tell.
    """
    name = platform.machine()
    wide = struct.calcsize("P") == 8
    if name in ("x86_64", "AMD64") and wide:
        return "x86_64"
    if name in ("aarch64", "arm64"):
        return "aarch64" if wide else "arm"
    if name.startswith("arm") and not wide:
        return "arm"
    return name if wide else f"{name} with 32-bit programs"


# clone, pivot_root, seccomp, by machine.
_NUMBERS = {
    "x86_64": (56, 155, 317),
    "aarch64": (220, 41, 277),
    "arm": (120, 218, 383),
}


def supported() -> bool:
    """Whether the tables of system calls know this machine."""
    return machine() in _NUMBERS


def clone_process(flags: int) -> int:
    """As os.fork, with the child in the new namespaces that `flags` ask for.

    Python's own at-fork handlers run, as they would not around the bare call: without them all
    children would draw the same random numbers. The C library learns the child's thread id.
    """
    number = _NUMBERS[machine()][0]
    address = ctypes.c_void_p()
    known = _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) == 0
    child_tid = ctypes.c_long(address.value or 0)
    if known:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    zero = ctypes.c_long(0)
    signal_and_flags = ctypes.c_long(flags | 17)  # SIGCHLD
    call = _python.syscall
    call.restype = ctypes.c_long
    _python.PyOS_BeforeFork()
    # The fourth and fifth arguments are in another order on x86_64 than on ARM. The one that is
    # not the thread id is the thread-local storage, unused without its flag.
    pid = int(call(ctypes.c_long(number), signal_and_flags, zero, zero, child_tid, child_tid))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    number_of_error = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        _fail("clone", number_of_error)
    return pid


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        options.encode(),
    )
    if result != 0:
        _fail(f"mount {kind or source} on {target}")


def unmount(target: str, flags: int) -> None:
    if _libc.umount2(os.fsencode(target), flags) != 0:
        _fail(f"umount2 {target}")


def set_mount_attributes(target: str, attributes: int, *, recursive: bool = True) -> None:
    """Add MOUNT_ATTR_* to the mount at `target` and, by default, to all below it."""
    arguments = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_long(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_long(_AT_RECURSIVE if recursive else 0),
        arguments,
        ctypes.c_long(len(arguments)),
    )
    if result != 0:
        _fail(f"mount_setattr {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    number = ctypes.c_long(_NUMBERS[machine()][1])
    if _libc.syscall(number, os.fsencode(new_root), os.fsencode(put_old)) != 0:
        _fail("pivot_root")


def prctl(option: int, argument: int | bytes) -> None:
    value = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, value, zero, zero, zero) != 0:
        _fail(f"prctl {option}")


def drop_all_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)) != 0:
        _fail("capset")


def install_filter(program: bytes) -> None:
    """Put a BPF program over this process and all its children for good."""
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 length, then an aligned pointer.
    argument = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    number = ctypes.c_long(_NUMBERS[machine()][2])
    mode = ctypes.c_long(SECCOMP_SET_MODE_FILTER)
    if _libc.syscall(number, mode, ctypes.c_long(0), argument) != 0:
        _fail("seccomp")


def set_host_name(name: str) -> None:
    encoded = name.encode()
    if _libc.sethostname(encoded, ctypes.c_size_t(len(encoded))) != 0:
        _fail("sethostname")


def sync_file_system(descriptor: int) -> None:
    """Put everything that was written to this descriptor's file system on the disk."""
    if _libc.syncfs(descriptor) != 0:
        _fail("syncfs")


def _fail(what: str, number: int | None = None) -> NoReturn:
    number = ctypes.get_errno() if number is None else number
    raise OSError(number, f"{what}: {os.strerror(number)}")
