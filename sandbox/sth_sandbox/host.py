"""What of this machine an Instance gets to see: interpreters, libraries, our runners.

Looked up once, when the spawner starts.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# The folder that holds the packages `sth_sandbox` and `sth`.
SOURCES = str(Path(__file__).resolve().parent.parent)
OUR_PACKAGES = ("sth_sandbox", "sth")

# Beside /usr: symbolic links into it on merged systems, directories of their own on others.
_SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)


@dataclass(frozen=True, slots=True)
class Host:
    """`binds`: paths shown read-only at their own place; `links`: name in / -> its target.

    `node`: the real binary, or "" without Node.js.
    """

    python: str
    node: str
    binds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def look_at_host(*, node: str = "") -> Host:
    """Find out. `node`: a path given by the operator, else the first on PATH."""
    python = real_python()
    binary = find_node(node)
    links = []
    binds = ["/usr"]
    for name in _SYSTEM_FOLDERS:
        path = "/" + name
        if os.path.islink(path):
            links.append((name, os.readlink(path)))
        elif os.path.isdir(path):
            binds.append(path)
    candidates = [sys.base_prefix, sys.base_exec_prefix, python]
    candidates += [f"{SOURCES}/{package}" for package in OUR_PACKAGES]
    candidates += [binary] if binary else []
    candidates += [path for path in _SYSTEM_FILES if os.path.exists(path)]
    for candidate in candidates:
        path = os.path.abspath(candidate)
        if path != "/" and not any(is_below(path, bound) for bound in binds):
            binds.append(path)
    return Host(python=python, node=binary, binds=tuple(binds), links=tuple(links))


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or inside it, by name."""
    return path == folder or path.startswith(folder + "/")


def real_python() -> str:
    """The interpreter itself: not a virtual environment's link, not a script of some manager."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def find_node(given: str = "") -> str:
    """The real Node.js binary, or "". A script on PATH (nvm, asdf, volta) is asked for it."""
    found = given or shutil.which("node") or shutil.which("nodejs") or ""
    if not found:
        return ""
    path = os.path.realpath(found)
    if _is_binary(path):
        return path
    try:
        answer = subprocess.run(
            [found, "-p", "process.execPath"], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    path = os.path.realpath(os.fsdecode(answer.stdout).strip())
    return path if _is_binary(path) else ""


def _is_binary(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
