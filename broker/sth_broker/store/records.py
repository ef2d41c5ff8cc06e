"""Records in SQLite: one file, one thread, and one commit for all that waits.

A put returns when its commit is on the disk (WAL with synchronous=FULL). While one commit runs,
what arrives waits and becomes the next.
"""

import asyncio
import json
import logging
import queue
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sth_broker.store.interface import Change, Json, Record
from sth_protocol.errors import BadName, Conflict, StorageFailed

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_KEY = 512
_GROUP = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 0);
"""


def check_key(key: str) -> str:
    """The key itself; BadName if it breaks the rule of the interface."""
    if not 0 < len(key) <= MAX_KEY or not all("!" <= each <= "~" for each in key):
        raise BadName(f"'{key[:80]}' is not a key of a record")
    return key


@dataclass(slots=True)
class _Operation:
    work: Callable[["_Group"], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Group:
    """What the operations of one commit share."""

    def __init__(self, connection: sqlite3.Connection, revision: int) -> None:
        self.connection = connection
        self.revision = revision
        self.changes: list[Change] = []

    def get(self, key: str) -> Record | None:
        row = self.connection.execute(
            "SELECT key, value, revision FROM records WHERE key = ?", (key,)
        ).fetchone()
        return _record(row) if row else None

    def list(self, prefix: str) -> list[Record]:
        rows = self.connection.execute(
            "SELECT key, value, revision FROM records WHERE key >= ? AND key < ? ORDER BY key",
            (prefix, prefix + "\x7f"),
        )
        return [_record(row) for row in rows]

    def put(self, key: str, value: str, expected: int | None) -> int:
        self._check(key, expected)
        self.revision += 1
        self.connection.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (key, value, self.revision)
        )
        record = Record(key, json.loads(value), self.revision)
        self.changes.append(Change(key, record, self.revision))
        return self.revision

    def delete(self, key: str, expected: int | None) -> bool:
        self._check(key, expected)
        deleted = self.connection.execute("DELETE FROM records WHERE key = ?", (key,)).rowcount
        if not deleted:
            return False
        self.revision += 1
        self.changes.append(Change(key, None, self.revision))
        return True

    def _check(self, key: str, expected: int | None) -> None:
        if expected is None:
            return
        row = self.connection.execute(
            "SELECT revision FROM records WHERE key = ?", (key,)
        ).fetchone()
        revision = row[0] if row else 0
        if revision != expected:
            raise Conflict(f"{key} is at revision {revision}, not {expected}")


class Watch:
    """The changes under a prefix; of several that wait, each key keeps its last."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._waiting: dict[str, Change] = {}
        self._order: deque[str] = deque()
        self._arrived = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        while not self._order:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.pop(self._order.popleft())

    def offer(self, change: Change) -> None:
        if change.key.startswith(self.prefix):
            if change.key not in self._waiting:
                self._order.append(change.key)
            self._waiting[change.key] = change
            self._arrived.set()


class _CommitThread:
    """Runs what is submitted, a group to a commit, and tells the watches."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = _connect(path)
        except sqlite3.Error as error:
            raise StorageFailed(f"{path} cannot be opened: {error}") from error
        self.watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._operations.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Callable[[_Group], Result]) -> "asyncio.Future[Result]":
        if self._closed:
            raise StorageFailed("the records are closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._operations.put(_Operation(work, loop, future))
        return future

    def _run(self) -> None:
        """The thread."""
        running = True
        while running:
            group: list[_Operation] = []
            following = self._operations.get()
            while following is not None:
                group.append(following)
                if len(group) == _GROUP or self._operations.empty():
                    break
                following = self._operations.get()
            running = following is not None
            if group:
                self._answer(group, *self._commit(group))
        self._connection.close()

    def _commit(self, group: list[_Operation]) -> tuple[list[Any], list[Change]]:
        """The results of a group, errors among them, and its changes, once they are durable."""
        try:
            self._connection.execute("BEGIN")
            (last,) = self._connection.execute("SELECT last FROM revision").fetchone()
            shared = _Group(self._connection, last)
            results = [_result_of(operation.work, shared) for operation in group]
            if shared.revision != last:
                self._connection.execute("UPDATE revision SET last = ?", (shared.revision,))
            self._connection.execute("COMMIT")
            return results, shared.changes
        except (sqlite3.Error, OSError) as error:
            logger.error("the records refused %d operations: %s", len(group), error)
            self._roll_back()
            failure = StorageFailed(f"the records refused: {error}", hint="see the broker's log")
            return [failure] * len(group), []

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.error("the records cannot roll back: %s", error)

    def _answer(self, group: list[_Operation], results: list[Any], changes: list[Change]) -> None:
        def deliver() -> None:
            for change in changes:
                for watch in list(self.watches):
                    watch.offer(change)
            for operation, result in zip(group, results, strict=True):
                if operation.future.done():
                    continue
                if isinstance(result, BaseException):
                    operation.future.set_exception(result)
                else:
                    operation.future.set_result(result)

        try:
            group[0].loop.call_soon_threadsafe(deliver)
        except RuntimeError:
            logger.debug("the loop ended before %d answers of the records", len(group))


class SqliteRecords:
    """The records of one SQLite file. Used from one event loop; `close` ends its thread."""

    def __init__(self, path: Path) -> None:
        self._thread = _CommitThread(path)

    async def get(self, key: str) -> Record | None:
        check_key(key)
        return await self._thread.submit(lambda group: group.get(key))

    async def put(self, key: str, value: Json, *, expected: int | None = None) -> int:
        check_key(key)
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return await self._thread.submit(lambda group: group.put(key, text, expected))

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        check_key(key)
        return await self._thread.submit(lambda group: group.delete(key, expected))

    async def list(self, prefix: str) -> list[Record]:
        return await self._thread.submit(lambda group: group.list(prefix))

    def watch(self, prefix: str) -> AsyncIterator[Change]:
        watch = Watch(prefix)
        self._thread.watches.add(watch)
        return watch

    async def close(self) -> None:
        """End the thread after what waits; safe to call twice."""
        await self._thread.close()


def _result_of(work: Callable[[_Group], Any], group: _Group) -> Any:
    try:
        return work(group)
    except Conflict as error:
        return error


def _record(row: tuple[str, str, int]) -> Record:
    return Record(row[0], json.loads(row[1]), row[2])


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(_SCHEMA)
    return connection
