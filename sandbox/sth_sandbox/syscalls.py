"""The few system calls that Python 3.11 has no function for, by ctypes.

`mount`, `prctl` and the others in the middle are the C library's own functions with their types:
they return a negative number and leave the reason in ctypes.get_errno(). The pointers to them are
made once, here, for all the children of the zygote.
"""

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Iterable

CLONE_PARENT = 0x00008000
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
AT_FDCWD = -100
AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
_PR_GET_TID_ADDRESS = 40

SECCOMP_SET_MODE_FILTER = 1
_SIG_SETMASK = 2
_SIGNAL_SET = 128  # bytes, in glibc and musl alike
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK

MOUNT_SETATTR = 442
# clone, pivot_root, seccomp, by machine.
_NUMBERS = {
    "x86_64": (56, 155, 317),
    "aarch64": (220, 41, 277),
    "arm": (120, 218, 383),
}


def machine() -> str:
    """x86_64, aarch64 or arm: what this process is, whatever the kernel is.

    A 64-bit kernel on a Raspberry Pi may run 32-bit programs: uname does not tell.
    """
    name = platform.machine()
    wide = struct.calcsize("P") == 8
    if name in ("aarch64", "arm64"):
        return "aarch64" if wide else "arm"
    if name.startswith("arm") and not wide:
        return "arm"
    return name if wide else f"{name} with 32-bit programs"


def supported() -> bool:
    """Whether the tables of system calls know this machine."""
    return machine() in _NUMBERS


_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock held: a child made by clone starts inside the call, and the lock
# must be its own when it comes out.
_python = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.c_long
_clone_number, PIVOT_ROOT, SECCOMP = _NUMBERS.get(machine(), (-1, -1, -1))

_clone = _python.syscall
_clone.restype = _long
_clone.argtypes = (_long,) * 6
_before_fork = _python.PyOS_BeforeFork
_after_fork_parent = _python.PyOS_AfterFork_Parent
_after_fork_child = _python.PyOS_AfterFork_Child

# (source, target, kind, flags, options), (target, flags), (option, argument, 0, 0, 0) ...
mount = _libc.mount
mount.argtypes = (ctypes.c_char_p,) * 3 + (ctypes.c_ulong, ctypes.c_char_p)
umount2 = _libc.umount2
umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
prctl = _libc.prctl
prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4
capset = _libc.capset
capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
sethostname = _libc.sethostname
sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
syncfs = _libc.syncfs
syncfs.argtypes = (ctypes.c_int,)
sigprocmask = _libc.sigprocmask
sigprocmask.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
# A pointer of its own for each kind of call by number, with its own types.
pivot_root = ctypes.CFUNCTYPE(_long, _long, ctypes.c_char_p, ctypes.c_char_p, use_errno=True)(
    ("syscall", _libc)
)
mount_setattr = ctypes.CFUNCTYPE(
    _long, _long, _long, ctypes.c_char_p, _long, ctypes.c_char_p, _long, use_errno=True
)(("syscall", _libc))
seccomp = ctypes.CFUNCTYPE(_long, _long, _long, _long, ctypes.c_char_p, use_errno=True)(
    ("syscall", _libc)
)


def clone_process(flags: int) -> int:
    """As os.fork, with the CLONE_* flags that are given, mostly new namespaces. OSError.

    Python's own at-fork handlers run, as they would not around the bare call: without them all
    children would draw the same random numbers. The C library learns the child's thread id.
    """
    tid = _tid_address()
    if tid:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    _before_fork()
    # The fourth and fifth arguments are in another order on x86_64 than on ARM. The one that is
    # not the thread id is the thread-local storage, unused without its flag.
    pid = int(_clone(_clone_number, flags | signal.SIGCHLD, 0, 0, tid, tid))
    if pid == 0:
        _after_fork_child()
        return 0
    number = ctypes.get_errno()
    _after_fork_parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return pid


def _tid_address() -> int:
    """Where the C library keeps this thread's id; 0 on a kernel that does not tell."""
    address = ctypes.c_void_p()
    known = prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) == 0
    return address.value or 0 if known else 0


def signal_descriptor(signals: Iterable[int]) -> int:
    """Block these signals and get a descriptor that is readable when one has arrived.

    A handler would have to be taken off again by every child; what is blocked is only let go.
    """
    mask = sum(1 << (number - 1) for number in signals).to_bytes(_SIGNAL_SET, "little")
    if sigprocmask(_SIG_SETMASK, mask, None) != 0:
        raise OSError(ctypes.get_errno(), "sigprocmask")
    descriptor = int(_libc.signalfd(-1, mask, _SFD_FLAGS))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return descriptor


# The arguments of `sigprocmask` that let all signals through again.
NO_SIGNAL_BLOCKED = (_SIG_SETMASK, bytes(_SIGNAL_SET), None)
