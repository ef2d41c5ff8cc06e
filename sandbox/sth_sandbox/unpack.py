"""Handles a package's archive in a process of its own, which may be lost at no harm.

    python -m sth_sandbox.unpack inspect FILE     checks it; prints {"package", "files", "bytes",
                                                  "language", "sha256"} or {"error"}
    extract, clear                                inside the sandbox: unpacks descriptor 3 into
                                                  the folder at $SEQUENCE_PATH, or empties it

One JSON object on stdout, exit code 0, or 1 if that is an error; never a traceback.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from sth_sandbox import package_json
from sth_sandbox.archive import Rules, walk
from sth_sandbox.errors import SandboxError, bad_package, bad_request
from sth_sandbox.gunzip import Gunzip

_PACKAGE_DESCRIPTOR = 3
_CPU_SECONDS = 30
_MEMORY = 512 * 1024 * 1024
_FOLDER_MODE = 0o755
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Result = Mapping[str, Any]


class Inspector:
    """Keeps the names of files and package.json, and drops the rest."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.package_json: bytes | None = None

    def folder(self, path: tuple[str, ...]) -> None:
        """Nothing is kept of a folder."""

    def file(self, path: tuple[str, ...], executable: bool, pieces: Iterator[bytes]) -> None:
        self.files.add("/".join(path))
        if path == (package_json.NAME,):
            self.package_json = _read_small(pieces)

    def package(self) -> dict[str, Any]:
        """The checked package.json."""
        if self.package_json is None:
            raise bad_package(
                "the package has no package.json at its top",
                hint="pack the folder's content, not the folder: tar -czf x.tar.gz -C FOLDER .",
            )
        return package_json.parse(self.package_json, self.files)


class Writer:
    """Makes the members below a folder, by descriptors, following nothing, replacing nothing."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _OPEN_FOLDER)
        self._parent: tuple[str, ...] = ()
        self._parent_descriptor = os.dup(self._root)

    def folder(self, path: tuple[str, ...]) -> None:
        os.mkdir(path[-1], _FOLDER_MODE, dir_fd=self._enter(path[:-1]))

    def file(self, path: tuple[str, ...], executable: bool, pieces: Iterator[bytes]) -> None:
        mode = 0o755 if executable else 0o644
        descriptor = os.open(path[-1], _OPEN_FILE, mode, dir_fd=self._enter(path[:-1]))
        with open(descriptor, "wb", buffering=0) as file:
            for piece in pieces:
                remaining = memoryview(piece)
                while remaining:
                    remaining = remaining[file.write(remaining) :]

    def sync(self) -> None:
        """Before the result counts, it must survive a power cut."""
        from sth_sandbox import syscalls

        if syscalls.syncfs(self._root) != 0:
            raise OSError("the unpacked files could not be synced")

    def _enter(self, path: tuple[str, ...]) -> int:
        """A descriptor of this folder, which is there already. The last one is kept open."""
        if path != self._parent:
            os.close(self._parent_descriptor)
            self._parent_descriptor = os.dup(self._root)
            for part in path:
                outer = self._parent_descriptor
                self._parent_descriptor = os.open(part, _OPEN_FOLDER, dir_fd=outer)
                os.close(outer)
            self._parent = path
        return self._parent_descriptor


def inspect(descriptor: int, rules: Rules) -> Result:
    """All the checks of an unpacking, and those of package.json, without writing anything."""
    inspector = Inspector()
    totals = walk(Gunzip(descriptor, limit=rules.stream), inspector, rules)
    package = inspector.package()
    return {
        "package": package,
        "language": package_json.language(package),
        "files": totals.files,
        "bytes": totals.bytes,
        "sha256": totals.sha256,
    }


def extract(descriptor: int, target: str, rules: Rules) -> Result:
    """Unpack below `target`, an empty folder. Nothing is written of an archive that is refused:
    it is read as a whole before, and the file may have changed since only to be refused again.
    """
    walk(Gunzip(descriptor, limit=rules.stream), Inspector(), rules)
    os.umask(0o022)
    writer = Writer(target)
    totals = walk(Gunzip(descriptor, limit=rules.stream), writer, rules)
    writer.sync()
    return {"files": totals.files, "bytes": totals.bytes, "sha256": totals.sha256}


def clear(target: str) -> Result:
    """Remove what is in `target`, not itself."""
    for name in os.listdir(target):
        path = f"{target}/{name}"
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return {}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one of the two and end this process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    rules = Rules()
    try:
        _limit_process(rules)
        result = _run(arguments, rules)
        code = 0
    except SandboxError as error:
        result, code = {"error": error.to_wire()}, 1
    except MemoryError:
        result, code = _failure("BAD_PACKAGE", "the archive takes too much memory to read"), 1
    except OSError as error:
        result, code = _failure("STORAGE_FAILED", f"the package could not be handled: {error}"), 1
    except Exception as error:
        result, code = _failure("INTERNAL", f"{type(error).__name__}: {error}"), 1
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(code)


def _run(arguments: list[str], rules: Rules) -> Result:
    match arguments:
        case ["extract"]:
            return extract(_PACKAGE_DESCRIPTOR, os.environ["SEQUENCE_PATH"], rules)
        case ["clear"]:
            return clear(os.environ["SEQUENCE_PATH"])
        case ["inspect", path]:
            return inspect(os.open(path, os.O_RDONLY | os.O_CLOEXEC), rules)
        case _:
            raise bad_request("wanted: inspect FILE")


def _limit_process(rules: Rules) -> None:
    def out_of_time(_number: int, _frame: object) -> None:
        raise bad_package("the archive takes too long to read")

    signal.signal(signal.SIGXCPU, out_of_time)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (rules.content, rules.content))


def _read_small(pieces: Iterator[bytes]) -> bytes:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > package_json.MAX_BYTES:
            raise bad_package(f"package.json has more than {package_json.MAX_BYTES} bytes")
    return data


def _failure(code: str, message: str) -> Result:
    return {"error": {"code": code, "message": message, "hint": ""}}


if __name__ == "__main__":
    main()
