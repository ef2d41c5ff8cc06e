"""The audit: who did what to whom and when, on disk before the doer hears that it is done.

A file of JSON lines that is only ever appended to. Each line carries the SHA-256 of the line before
it, so that a line that was changed or taken out in the middle shows.
"""

import asyncio
import datetime
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sth_protocol.errors import Corrupt, StorageFailed

logger = logging.getLogger(__name__)

_START = "0" * 64
_BLOCK = 64 * 1024


class AuditLog:
    """One open file. `close` it at the end."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end, self._previous = _cut_torn_tail(self._descriptor)
        self._is_torn = False
        # One thread keeps the lines in order, and finishes a line whose caller gave up waiting.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")

    async def record(self, action: str, *, space: str, by: str, subject: str, **more: Any) -> None:
        """Durable when it returns. `action`: such as "hub.revoke"; `by`: the id of a token, or the
        address of one who has none; `subject`: the id of what it was done to. StorageFailed."""
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        entry = {
            "time": now.isoformat(timespec="milliseconds"),
            "action": action,
            "space": space,
            "by": by,
            "subject": subject,
            **more,
        }
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, entry)

    def close(self) -> None:
        """Returns when what was recorded is on disk."""
        self._thread.shutdown()
        os.close(self._descriptor)

    def _append(self, entry: dict[str, Any]) -> None:
        entry["previous"] = self._previous
        line = json.dumps(entry, separators=(",", ":")).encode()
        try:
            if self._is_torn:
                # A line failed before; the next one must follow a whole one.
                os.ftruncate(self._descriptor, self._end)
            self._is_torn = True
            written = os.write(self._descriptor, line + b"\n")
            if written != len(line) + 1:
                raise OSError(f"{written} bytes of {len(line) + 1} were taken")
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageFailed(
                f"the audit in {self._path} cannot be written: {error}",
                hint="nothing that must be audited is done until it can; free some space",
            ) from None
        self._is_torn = False
        self._end += len(line) + 1
        self._previous = hashlib.sha256(line).hexdigest()


def verify(path: Path) -> int:
    """The number of whole lines of an audit whose chain holds. Corrupt names the first that breaks
    it."""
    previous = _START
    count = 0
    with path.open("rb") as file:
        for count, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return count - 1
            entry = json.loads(line)
            if entry.get("previous") != previous:
                raise Corrupt(f"line {count} of {path} does not follow the line before it")
            previous = hashlib.sha256(line[:-1]).hexdigest()
    return count


def _cut_torn_tail(descriptor: int) -> tuple[int, str]:
    """Where the last whole line ends, and its hash; a line that a crash cut was never
    acknowledged, and goes."""
    size = os.fstat(descriptor).st_size
    tail = b""
    start = size
    while start > 0 and tail.count(b"\n") < 2:
        start = max(0, start - _BLOCK)
        tail = os.pread(descriptor, min(_BLOCK, size - start - len(tail)), start) + tail
    end = start + tail.rfind(b"\n") + 1
    if end != size:
        logger.warning("the audit ended in a line that was cut; it is removed")
        os.ftruncate(descriptor, end)
    whole = tail[: end - start]
    if not whole:
        return end, _START
    return end, hashlib.sha256(whole[:-1].rpartition(b"\n")[2]).hexdigest()
