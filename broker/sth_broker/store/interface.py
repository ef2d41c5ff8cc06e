"""The storage interface: what the broker asks of a store, and nothing that betrays files or SQL.

Three small async interfaces. Every engine passes tests/broker/test_store_conformance.py. Whatever
returns without an error is durable; a StorageFailed write was not stored.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sth_protocol.batch import Buffer
from sth_protocol.batch import Chunk as Chunk
from sth_protocol.batch import Gap as Gap
from sth_protocol.batch import StoredBatch as StoredBatch

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A value under its key. `revision` rises with every change of anything in the store."""

    key: str
    value: Json
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a key. `record` is None when it was deleted."""

    key: str
    record: Record | None
    revision: int


class Records(Protocol):
    """Values under keys such as `hub/<id>`: printable ASCII, at most 512 characters, no spaces.
    Values are maps of plain JSON."""

    async def get(self, key: str) -> Record | None: ...

    async def put(self, key: str, value: Json, *, expected: int | None = None) -> int:
        """The new revision. `expected`: the revision that must stand there, 0 for none at all,
        None for whatever; Conflict otherwise."""
        ...

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Whether there was one. Conflict if `expected` is not its revision."""
        ...

    async def list(self, prefix: str) -> list[Record]:
        """By key."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[Change]:
        """Changes from this call on, in order; several of one key may arrive as the last."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Records from `start` up to, not including, `end` are stored, in `size` bytes."""

    start: int
    end: int
    size: int


class Topics(Protocol):
    """Logs of batches. A log is named by 1 to 240 of a-z A-Z 0-9 _ + . - and comes into being with
    its first append."""

    def append(
        self, log: str, batches: Sequence[Buffer], *, expected_tail: int, time_ms: int
    ) -> asyncio.Future[int]:
        """Queue encoded batches; they are stored in the order of the calls, stamped with offset and
        time. The future gives the new end once they are durable. Conflict if the log does not end
        at `expected_tail`, StorageFailed if the disk refused: then none of them is stored, and all
        that was queued behind them for this log fails as well."""
        ...

    async def read(self, log: str, offset: int, max_bytes: int) -> Chunk:
        """Batches from the one that holds `offset` on, at least one, else about `max_bytes` at
        most; none at the end. OffsetTrimmed before the start, OffsetBeyondEnd after the end."""
        ...

    async def offset_at(self, log: str, time_ms: int) -> int:
        """The first offset of a batch stored at `time_ms` or later; the end if there is none."""
        ...

    async def trim(self, log: str, before: int, *, down_to: int = 0) -> Bounds:
        """Let go of what stands before `before`, the oldest first, until at most `down_to` bytes
        are left; in the pieces that the engine can let go of. The bounds after it."""
        ...

    async def bounds(self, log: str) -> Bounds:
        """Of a log that never was: 0, 0, 0."""
        ...

    async def delete(self, log: str) -> None: ...

    async def names(self) -> list[str]:
        """Of all logs, sorted."""
        ...


class Packages(Protocol):
    """Files by the SHA-256 of their content."""

    def temporary(self) -> Path:
        """A new path in the same file system, to be filled and given to `put_file`. What is left
        there is removed when the store is opened again."""
        ...

    async def put_file(self, path: Path, sha256: str) -> None:
        """Take over a finished file, whose hash the caller has computed."""
        ...

    async def open(self, sha256: str) -> BinaryIO:
        """Positioned at its start; the caller closes it. NotFound."""
        ...

    async def size(self, sha256: str) -> int:
        """In bytes. NotFound."""
        ...

    async def delete(self, sha256: str) -> bool:
        """Whether there was one."""
        ...

    async def list(self) -> list[str]:
        """All hashes, sorted."""
        ...
