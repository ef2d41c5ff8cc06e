"""A store in memory that keeps batches as opaque messages, as a message server would: it shows that
nothing above the interface leans on files or SQL. Nothing in it outlives the process."""

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sth_broker.store.interface import Bounds, Change, Chunk, Json, Record, StoredBatch
from sth_broker.store.log_names import check_log_name
from sth_broker.store.records import check_key
from sth_protocol import batch
from sth_protocol.batch import Buffer
from sth_protocol.errors import Conflict, NotFound, OffsetBeyondEnd, OffsetTrimmed


class MemoryRecords:
    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._revision = 0
        self._watches: list[tuple[str, asyncio.Queue[Change]]] = []

    async def get(self, key: str) -> Record | None:
        return self._records.get(check_key(key))

    async def put(self, key: str, value: Json, *, expected: int | None = None) -> int:
        self._check(check_key(key), expected)
        self._revision += 1
        record = self._records[key] = Record(key, dict(value), self._revision)
        self._tell(Change(key, record, self._revision))
        return self._revision

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        self._check(check_key(key), expected)
        if self._records.pop(key, None) is None:
            return False
        self._revision += 1
        self._tell(Change(key, None, self._revision))
        return True

    async def list(self, prefix: str) -> list[Record]:
        return [self._records[key] for key in sorted(self._records) if key.startswith(prefix)]

    def watch(self, prefix: str) -> AsyncIterator[Change]:
        changes: asyncio.Queue[Change] = asyncio.Queue()
        self._watches.append((prefix, changes))

        async def follow() -> AsyncIterator[Change]:
            while True:
                yield await changes.get()

        return follow()

    def _check(self, key: str, expected: int | None) -> None:
        found = self._records.get(key)
        revision = found.revision if found else 0
        if expected is not None and expected != revision:
            raise Conflict(f"{key} is at revision {revision}, not {expected}")

    def _tell(self, change: Change) -> None:
        for prefix, changes in self._watches:
            if change.key.startswith(prefix):
                changes.put_nowait(change)


@dataclass
class _Messages:
    """`bases`: the first offset of each message; `start` and `end` of what is kept."""

    start: int = 0
    end: int = 0
    bases: list[int] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)


class MemoryTopics:
    """One message a batch; trims by the message."""

    def __init__(self) -> None:
        self._logs: dict[str, _Messages] = {}

    def append(
        self, log: str, batches: Sequence[Buffer], *, expected_tail: int, time_ms: int
    ) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        messages = self._logs.setdefault(check_log_name(log), _Messages())
        if messages.end != expected_tail:
            future.set_exception(Conflict(f"the log ends at {messages.end}, not {expected_tail}"))
            return future
        for each in batches:
            head, rest = batch.stamped(each, messages.end, time_ms)
            messages.bases.append(messages.end)
            messages.messages.append(head + rest)
            messages.end += batch.read_header(each).count
        future.set_result(messages.end)
        return future

    async def read(self, log: str, offset: int, max_bytes: int) -> Chunk:
        messages = self._logs.get(check_log_name(log), _Messages())
        if offset < messages.start:
            raise OffsetTrimmed(f"offset {offset} is no longer kept")
        if offset > messages.end:
            raise OffsetBeyondEnd(f"offset {offset} is beyond the end")
        found: list[StoredBatch] = []
        size, following = 0, offset
        for message in messages.messages[max(0, bisect_right(messages.bases, offset) - 1) :]:
            header = batch.read_checked(message)
            if header.next_offset <= offset:
                continue
            if found and size + header.size > max_bytes:
                break
            found.append(StoredBatch(header, memoryview(message)))
            size += header.size
            following = header.next_offset
        return Chunk(tuple(found), following)

    async def offset_at(self, log: str, time_ms: int) -> int:
        messages = self._logs.get(check_log_name(log), _Messages())
        for message in messages.messages:
            header = batch.read_header(message)
            if header.time_ms >= time_ms:
                return header.base_offset
        return messages.end

    async def trim(self, log: str, before: int, *, down_to: int = 0) -> Bounds:
        messages = self._logs.get(check_log_name(log), _Messages())
        size = sum(map(len, messages.messages))
        while messages.messages:
            header = batch.read_header(messages.messages[0])
            if header.next_offset > before or size <= down_to:
                break
            del messages.messages[0], messages.bases[0]
            messages.start = header.next_offset
            size -= header.size
        return await self.bounds(log)

    async def bounds(self, log: str) -> Bounds:
        messages = self._logs.get(check_log_name(log), _Messages())
        return Bounds(messages.start, messages.end, sum(map(len, messages.messages)))

    async def delete(self, log: str) -> None:
        self._logs.pop(check_log_name(log), None)

    async def names(self) -> list[str]:
        return sorted(self._logs)


class MemoryPackages:
    """Content in a dictionary would do, but the interface hands out files: so one flat folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def temporary(self) -> Path:
        return self._directory / f"tmp-{secrets.token_hex(8)}"

    async def put_file(self, path: Path, sha256: str) -> None:
        path.rename(self._directory / sha256)

    async def open(self, sha256: str) -> BinaryIO:
        return self._existing(sha256).open("rb")

    async def size(self, sha256: str) -> int:
        return self._existing(sha256).stat().st_size

    async def delete(self, sha256: str) -> bool:
        try:
            self._existing(sha256).unlink()
        except NotFound:
            return False
        return True

    async def list(self) -> list[str]:
        return sorted(
            each.name for each in self._directory.iterdir() if not each.name.startswith("tmp-")
        )

    def _existing(self, sha256: str) -> Path:
        path = self._directory / sha256
        if not path.exists():
            raise NotFound("there is no such package")
        return path
