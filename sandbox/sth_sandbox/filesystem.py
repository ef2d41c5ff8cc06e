"""The root file system of one Instance, as actions of the Instance's own process.

A small memory file system with read-only binds of what programs need, memory file systems of its
own to write to, a fresh /proc, and nothing else: no /sys, no host /etc, no home directories. The
actions need the privileges over the process's own mount namespace.

Paths of the spawner's directory are relative to the working directory: the kernel carries that
over into the new mount namespace, while a descriptor would still belong to the old one.
"""

import functools
import os
import struct
from dataclasses import dataclass

from sth_sandbox import syscalls
from sth_sandbox.actions import Action, write_file
from sth_sandbox.host import Host

# In the spawner's directory: an empty folder to build the root over.
MOUNT_POINT = "root"
PACKAGE = "/sequence"
DATA = "/data"

_SCRATCH_BYTES = 256 * 1024 * 1024
_SCRATCH_INODES = 65536
_ROOT_OPTIONS = "size=1m,nr_inodes=4096,mode=755"
_HIDDEN_OPTIONS = "size=4k,nr_inodes=2,mode=555"
_READ_ONLY = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_NO_DEVICES = syscalls.MS_NOSUID | syscalls.MS_NODEV
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


def root_actions(tree: Tree) -> list[Action]:
    """Build the root and move into it."""
    return [*_own_actions(tree), *_common_actions(tree.host)]


def _own_actions(tree: Tree) -> list[Action]:
    """What differs from Instance to Instance, on top of the empty root."""
    step = "root file system"
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    if not tree.package_writable:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    files = {
        "passwd": (
            "root:x:0:0:root:/:/usr/sbin/nologin\n"
            f"sequence:x:{tree.user}:{tree.group}:Sequence:{DATA}:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
        ),
        "group": f"root:x:0:\nsequence:x:{tree.group}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {tree.host_name}\n::1 localhost\n",
        "hostname": f"{tree.host_name}\n",
    }
    data_options = f"mode=700,uid={tree.user},gid={tree.group}"
    return [
        *_empty_root(),
        *(
            Action(step, write_file, (f"{MOUNT_POINT}/etc/{name}", text.encode()))
            for name, text in files.items()
        ),
        _mount_scratch(MOUNT_POINT + DATA, data_options),
        *_bind(step, tree.package, MOUNT_POINT + PACKAGE, attributes),
    ]


@functools.cache
def _empty_root() -> list[Action]:
    private = syscalls.MS_REC | syscalls.MS_PRIVATE
    step = "root file system"
    folders = ("etc", "dev", "dev/shm", "proc", "sequence", "data", "tmp")
    return [
        Action("mount namespace", syscalls.mount, (None, b"/", None, private, None)),
        _mount(step, "tmpfs", MOUNT_POINT, _NO_DEVICES, _ROOT_OPTIONS),
        *(Action(step, os.mkdir, (f"{MOUNT_POINT}/{name}", 0o755)) for name in folders),
    ]


@functools.cache
def _common_actions(host: Host) -> list[Action]:
    """What is the same for all Instances: prepared once."""
    return [
        # Before anything is shown: an interpreter may live below /tmp.
        _mount_scratch(f"{MOUNT_POINT}/tmp", "mode=1777"),
        _mount_scratch(f"{MOUNT_POINT}/dev/shm", "mode=1777"),
        *_etc_actions(),
        *_host_actions(host),
        *_device_actions(),
        *_proc_actions(),
        *_pivot_actions(),
    ]


def _etc_actions() -> list[Action]:
    files = {
        "resolv.conf": b"nameserver 127.0.0.1\n",
        "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    }
    return [
        Action("root file system", write_file, (f"{MOUNT_POINT}/etc/{name}", data))
        for name, data in files.items()
    ]


def _host_actions(host: Host) -> list[Action]:
    step = "root file system"
    actions = [
        Action(step, os.symlink, (target, f"{MOUNT_POINT}/{name}")) for name, target in host.links
    ]
    made = {"/etc", "/dev", "/tmp", "/data"}
    for path in host.binds:
        is_folder = os.path.isdir(path)
        for folder in _folders_of(path if is_folder else os.path.dirname(path)):
            if folder not in made:
                made.add(folder)
                actions.append(Action(step, os.mkdir, (MOUNT_POINT + folder, 0o755)))
        if not is_folder:
            actions.append(Action(step, write_file, (MOUNT_POINT + path, b"")))
        actions += _bind(step, path, MOUNT_POINT + path, _READ_ONLY)
    return actions


def _folders_of(path: str) -> list[str]:
    """/a, /a/b, /a/b/c for /a/b/c."""
    parts = path.strip("/").split("/") if path != "/" else []
    return ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _device_actions() -> list[Action]:
    """Binds, not nodes: a user namespace may not make device nodes."""
    step = "devices"
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
    actions = []
    for name in _DEVICES:
        target = f"{MOUNT_POINT}/dev/{name}"
        actions.append(Action(step, write_file, (target, b"")))
        actions += _bind(step, f"/dev/{name}", target, attributes)
    for name, link in _DEVICE_LINKS:
        actions.append(Action(step, os.symlink, (link, f"{MOUNT_POINT}/dev/{name}")))
    return actions


def _proc_actions() -> list[Action]:
    """A /proc of the process's own pid namespace, nothing of it writable.

    Masks instead of its option subset=pid, which breaks os.cpu_count and psutil.
    """
    step = "proc"
    target = f"{MOUNT_POINT}/proc"
    flags = _NO_DEVICES | syscalls.MS_NOEXEC
    actions = [_mount(step, "proc", target, flags, "")]
    for name in _HIDDEN_FILES:
        if os.path.exists(f"/proc/{name}"):
            arguments = (b"/dev/null", f"{target}/{name}".encode(), None, syscalls.MS_BIND, None)
            actions.append(Action(step, syscalls.mount, arguments))
    for name in _HIDDEN_FOLDERS:
        if os.path.isdir(f"/proc/{name}"):
            read_only = syscalls.MS_RDONLY | flags
            actions.append(_mount(step, "tmpfs", f"{target}/{name}", read_only, _HIDDEN_OPTIONS))
    actions.append(_set_attributes(step, target, syscalls.MOUNT_ATTR_RDONLY, recursive=False))
    return actions


def _pivot_actions() -> list[Action]:
    step = "pivot_root"
    return [
        Action(step, os.chdir, (MOUNT_POINT,)),
        # The old root lands on top of the new one at the same place, and is taken off at once.
        Action(step, syscalls.pivot_root, (syscalls.PIVOT_ROOT, b".", b".")),
        Action(step, syscalls.umount2, (b".", syscalls.MNT_DETACH)),
        Action(step, os.chdir, ("/",)),
        _set_attributes(step, "/", _READ_ONLY, recursive=False),
    ]


def _mount_scratch(target: str, options: str) -> Action:
    options = f"{options},size={_SCRATCH_BYTES},nr_inodes={_SCRATCH_INODES}"
    return _mount("root file system", "tmpfs", target, _NO_DEVICES, options)


def _mount(step: str, kind: str, target: str, flags: int, options: str) -> Action:
    name = kind.encode()
    arguments = (name, os.fsencode(target), name, flags, options.encode())
    return Action(step, syscalls.mount, arguments)


def _bind(step: str, source: str, target: str, attributes: int) -> list[Action]:
    """Recursive: a user namespace may not show a tree without what is mounted inside it."""
    flags = syscalls.MS_BIND | syscalls.MS_REC
    arguments = (os.fsencode(source), os.fsencode(target), None, flags, None)
    return [
        Action(step, syscalls.mount, arguments),
        _set_attributes(step, target, attributes),
    ]


def _set_attributes(step: str, target: str, attributes: int, *, recursive: bool = True) -> Action:
    """Add MOUNT_ATTR_* to the mount at `target` and, by default, to all below it."""
    structure = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = syscalls.AT_RECURSIVE if recursive else 0
    path = os.fsencode(target)
    return Action(
        step,
        syscalls.mount_setattr,
        (syscalls.MOUNT_SETATTR, syscalls.AT_FDCWD, path, flags, structure, len(structure)),
    )
