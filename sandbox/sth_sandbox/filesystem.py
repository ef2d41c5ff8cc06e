"""The root file system of one Instance, built by the Instance's own process.

A small memory file system with read-only binds of what programs need, memory file systems of its
own to write to, a fresh /proc, and nothing else: no /sys, no host /etc, no home directories. It
runs with the privileges over its own mount namespace, before they are dropped.

Paths of the spawner's directory are relative to the working directory: the kernel carries that
over into the new mount namespace, while a descriptor would still belong to the old one.
"""

import os
from dataclasses import dataclass

from sth_sandbox import syscalls
from sth_sandbox.host import Host
from sth_sandbox.steps import step

# In the spawner's directory: an empty folder to build the root over.
MOUNT_POINT = "root"
PACKAGE = "/sequence"
DATA = "/data"

_SCRATCH_BYTES = 256 * 1024 * 1024
_SCRATCH_INODES = 65536
_ROOT_OPTIONS = "size=1m,nr_inodes=4096,mode=755"
_READ_ONLY = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
# Readable parts of /proc that tell about the whole machine's memory, keys or kernel.
_HIDDEN_FILES = ("kcore", "keys", "key-users", "kallsyms", "kmsg", "sysrq-trigger", "timer_list")
_HIDDEN_FOLDERS = ("acpi", "scsi", "bus", "fs", "irq")


@dataclass(frozen=True, slots=True)
class Tree:
    """What one Instance's root holds. `user` and `group` are those it runs with, inside.

    `package`: shown at /sequence, relative to the spawner's directory, read-only unless
    `package_writable`.
    """

    host: Host
    package: str
    host_name: str
    user: int
    group: int
    package_writable: bool = False


def build_root(tree: Tree) -> None:
    """Build it and make it this process's root. OSError says what failed."""
    os.umask(0o022)
    with step("mount namespace"):
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with step("root file system"):
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("tmpfs", MOUNT_POINT, "tmpfs", flags, _ROOT_OPTIONS)
        _make_scratch(tree)
        _make_etc(tree)
        _show_host(tree.host)
        _show_package(tree)
    with step("devices"):
        _make_devices()
    with step("proc"):
        _mount_proc()
    with step("pivot_root"):
        os.chdir(MOUNT_POINT)
        # The old root lands on top of the new one at the same place, and is taken off at once.
        syscalls.pivot_root(".", ".")
        syscalls.unmount(".", syscalls.MNT_DETACH)
        os.chdir("/")
        syscalls.set_mount_attributes("/", _READ_ONLY, recursive=False)


def _make_scratch(tree: Tree) -> None:
    """Before anything is shown: an interpreter may live below /tmp or /data."""
    _scratch("tmp", "mode=1777")
    _scratch("dev/shm", "mode=1777")
    _scratch("data", f"mode=700,uid={tree.user},gid={tree.group}")
    for name in ("sequence", "proc"):
        os.mkdir(f"{MOUNT_POINT}/{name}")


def _scratch(path: str, options: str) -> None:
    target = f"{MOUNT_POINT}/{path}"
    os.makedirs(target)
    options = f"{options},size={_SCRATCH_BYTES},nr_inodes={_SCRATCH_INODES}"
    syscalls.mount("tmpfs", target, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)


def _show_host(host: Host) -> None:
    for name, target in host.links:
        os.symlink(target, f"{MOUNT_POINT}/{name}")
    for path in host.binds:
        _bind(path, MOUNT_POINT + path, _READ_ONLY)


def _show_package(tree: Tree) -> None:
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    if not tree.package_writable:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    _bind(tree.package, MOUNT_POINT + PACKAGE, attributes)


def _bind(source: str, target: str, attributes: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        _make_mount_point_file(target)
    syscalls.mount(source, target, "", syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.set_mount_attributes(target, attributes)


def _make_mount_point_file(target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _make_etc(tree: Tree) -> None:
    user, group = tree.user, tree.group
    os.makedirs(f"{MOUNT_POINT}/etc")
    _write(
        "etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        f"sequence:x:{user}:{group}:Sequence:{DATA}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    )
    _write("etc/group", f"root:x:0:\nsequence:x:{group}:\nnogroup:x:65534:\n")
    _write("etc/hosts", f"127.0.0.1 localhost {tree.host_name}\n::1 localhost\n")
    _write("etc/hostname", f"{tree.host_name}\n")
    _write("etc/resolv.conf", "nameserver 127.0.0.1\n")
    _write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")


def _write(path: str, text: str) -> None:
    with open(f"{MOUNT_POINT}/{path}", "w", encoding="utf-8") as file:
        file.write(text)


def _make_devices() -> None:
    """Binds, not nodes: a user namespace may not make device nodes."""
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
    for name in _DEVICES:
        _bind(f"/dev/{name}", f"{MOUNT_POINT}/dev/{name}", attributes)
    for name, target in _DEVICE_LINKS:
        os.symlink(target, f"{MOUNT_POINT}/dev/{name}")


def _mount_proc() -> None:
    """A /proc of this process's own pid namespace, nothing of it writable.

    Masks instead of its option subset=pid, which breaks os.cpu_count and psutil.
    """
    target = f"{MOUNT_POINT}/proc"
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", target, "proc", flags)
    for name in _HIDDEN_FILES:
        if os.path.exists(f"{target}/{name}"):
            syscalls.mount("/dev/null", f"{target}/{name}", "", syscalls.MS_BIND)
    for name in _HIDDEN_FOLDERS:
        if os.path.isdir(f"{target}/{name}"):
            options = syscalls.MS_RDONLY | flags
            syscalls.mount(
                "tmpfs", f"{target}/{name}", "tmpfs", options, "size=4k,nr_inodes=2,mode=555"
            )
    syscalls.set_mount_attributes(target, syscalls.MOUNT_ATTR_RDONLY, recursive=False)
