"""Unpacked packages by the SHA-256 of their archives, in the spawner's own directory.

An entry is complete or not there: it is made under a temporary name by a sandboxed child, which
also takes the hash of what it reads, and renamed.
"""

import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sth_sandbox.actions import SetupFailed
from sth_sandbox.children import Child
from sth_sandbox.errors import SandboxError, bad_request, corrupt, insufficient, refused, too_large
from sth_sandbox.loop import Loop, Timer
from sth_sandbox.packets import close_all
from sth_sandbox.plans import Machine, clear_plan, unpack_plan, unpack_user
from sth_sandbox.zygote import Zygote

logger = logging.getLogger(__name__)

FOLDER = "cache"
_TREE = "tree"
_SUMMARY = "unpacked.json"
_TEMPORARY = "unpacking-"
_UNPACK_SECONDS = 120.0
_MAX_JOBS = 16
_MAX_RESULT = 16 * 1024

Result = Mapping[str, object] | SandboxError
Finished = Callable[[Result], None]


@dataclass(slots=True)
class _Job:
    """One unpacking, and all who wait for it."""

    sha256: str
    folder: str
    output: int
    waiting: list[Finished] = field(default_factory=list)
    child: Child | None = None
    timer: Timer | None = None
    failure: SandboxError | None = None


class Cache:
    """Paths are relative to the spawner's directory, which is its working directory."""

    def __init__(self, loop: Loop, zygote: Zygote, machine: Machine) -> None:
        self._loop = loop
        self._zygote = zygote
        self._machine = machine
        self._jobs: dict[str, _Job] = {}
        self._discarded = 0
        os.makedirs(FOLDER, exist_ok=True)
        for name in os.listdir(FOLDER):
            if name.startswith(_TEMPORARY):
                shutil.rmtree(f"{FOLDER}/{name}", ignore_errors=True)

    def tree(self, sha256: str) -> str:
        """The unpacked tree of a package that is here."""
        return f"{FOLDER}/{sha256}/{_TREE}"

    def has(self, sha256: str) -> bool:
        return os.path.isdir(self.tree(sha256))

    def unpack(self, sha256: str, package: int, finished: Finished) -> None:
        """Unpack the archive at this descriptor, unless it is here; `finished` is called later
        with {files, bytes} or the error. The descriptor stays the caller's.
        """
        if self.has(sha256):
            finished(self._summary(sha256))
            return
        job = self._jobs.get(sha256)
        if job is None:
            job = self._jobs[sha256] = self._begin(sha256, package)
        job.waiting.append(finished)

    def discard(self, sha256: str) -> None:
        """Forget a package; harmless if it is not here."""
        if self.has(sha256):
            self._discarded += 1
            gone = f"{FOLDER}/{_TEMPORARY}{self._discarded}.old"
            os.rename(f"{FOLDER}/{sha256}", gone)
            self._clear(gone)

    def _begin(self, sha256: str, package: int) -> _Job:
        _check_is_file(package)
        if len(self._jobs) >= _MAX_JOBS:
            raise insufficient(
                f"{_MAX_JOBS} packages are being unpacked already", hint="try again later"
            )
        folder = f"{FOLDER}/{_TEMPORARY}{sha256}"
        tree = f"{folder}/{_TREE}"
        output, child_output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        job = _Job(sha256, folder, output)
        try:
            os.makedirs(tree)
            # The spawner's umask hides everything; Instances run as users of their own.
            os.chmod(tree, 0o755)
            if self._machine.privileged:
                user = unpack_user(self._machine)
                os.chown(tree, user, user)
            plan = unpack_plan(
                self._machine, target=tree, descriptors=(nothing, child_output, nothing, package)
            )
            job.child = Child(
                self._loop,
                self._zygote,
                plan,
                on_ready=lambda failure: self._ready(job, failure),
                on_exit=lambda status: self._ended(job, status),
            )
            job.timer = self._loop.call_later(_UNPACK_SECONDS, job.child.kill)
        except (SetupFailed, OSError) as error:
            os.close(output)
            shutil.rmtree(folder, ignore_errors=True)
            raise insufficient(f"the package could not be unpacked: {error}") from error
        finally:
            close_all((child_output, nothing))
        return job

    def _ready(self, job: _Job, failure: SetupFailed | None) -> None:
        if failure is not None:
            job.failure = refused(f"the sandbox could not be made: {failure}")

    def _ended(self, job: _Job, status: int) -> None:
        if job.timer is not None:
            job.timer.cancel()
        try:
            data = os.read(job.output, _MAX_RESULT)
        except BlockingIOError:
            data = b""
        os.close(job.output)
        try:
            result: Result = self._complete(job, status, data)
        except SandboxError as error:
            result = error
        if isinstance(result, SandboxError):
            self._clear(job.folder, then=lambda: self._finish(job, result))
        else:
            self._finish(job, result)

    def _finish(self, job: _Job, result: Result) -> None:
        del self._jobs[job.sha256]
        for finished in job.waiting:
            finished(result)

    def _clear(self, folder: str, *, then: Callable[[], None] = lambda: None) -> None:
        """Remove a folder of packages. Thousands of files take a while: a child does it."""

        def ended(_status: int) -> None:
            shutil.rmtree(folder, ignore_errors=True)
            then()

        tree = f"{folder}/{_TREE}"
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            if self._machine.privileged:
                user = unpack_user(self._machine)
                os.chown(tree, user, user)
            plan = clear_plan(self._machine, target=tree, descriptors=(nothing,) * 3)
            Child(self._loop, self._zygote, plan, on_ready=lambda _failure: None, on_exit=ended)
        except (SetupFailed, OSError):
            ended(0)
        finally:
            os.close(nothing)

    def _complete(self, job: _Job, status: int, data: bytes) -> Mapping[str, object]:
        if job.failure is not None:
            raise job.failure
        try:
            result = json.loads(data)
            error = result.get("error")
        except (ValueError, AttributeError):
            code = os.waitstatus_to_exitcode(status)
            raise SandboxError(
                "BAD_PACKAGE",
                f"the process that unpacked the package was lost (it ended with {code})",
                hint="the archive may need too much time or memory",
            ) from None
        if error is not None:
            raise SandboxError(error["code"], error["message"], hint=error["hint"])
        if result["sha256"] != job.sha256:
            raise corrupt(f"the package has the SHA-256 {result['sha256']}, not {job.sha256}")
        summary = {"files": result["files"], "bytes": result["bytes"]}
        try:
            if self._machine.privileged:
                os.chown(f"{job.folder}/{_TREE}", 0, 0)
            with open(f"{job.folder}/{_SUMMARY}", "w", encoding="ascii") as file:
                json.dump(summary, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(job.folder, f"{FOLDER}/{job.sha256}")
        except OSError as failure:
            raise SandboxError("STORAGE_FAILED", f"the package was not kept: {failure}") from None
        return summary

    def _summary(self, sha256: str) -> Mapping[str, object]:
        try:
            with open(f"{FOLDER}/{sha256}/{_SUMMARY}", encoding="ascii") as file:
                summary = json.load(file)
            return {"files": int(summary["files"]), "bytes": int(summary["bytes"])}
        except (OSError, ValueError, KeyError) as error:
            raise corrupt(f"the cache's entry {sha256[:12]} is broken: {error}") from error


def _check_is_file(descriptor: int) -> None:
    details = os.fstat(descriptor)
    if not stat.S_ISREG(details.st_mode):
        raise bad_request("the descriptor of the package is not one of a regular file")
    if details.st_size > 1 << 30:
        raise too_large("a package has at most 1 GiB")
