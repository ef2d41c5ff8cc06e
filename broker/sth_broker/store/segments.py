"""Topics on segment journals: one directory a log, one thread that writes, a few that read.

The writer takes all that waits, writes it, syncs each log once, and answers; meanwhile the next
group gathers. Readers never wait for a sync.
"""

import asyncio
import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sth_broker.store.interface import Bounds, Chunk
from sth_broker.store.log_names import check_log_name
from sth_protocol.batch import Buffer
from sth_protocol.errors import Conflict, OffsetBeyondEnd, SthError, StorageFailed
from sth_protocol.files import DirectoryFiles, Files, sync_directory
from sth_protocol.group_commit import GroupCommit
from sth_protocol.journal import SEGMENT_BYTES, Journal
from sth_protocol.journal_read import offset_at, read_place
from sth_protocol.journal_segment import index_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_READERS = 4
# Descriptors kept open for appends; a log that rests opens again with its next one.
_AWAKE = 128
_READ_ATTEMPTS = 3


@dataclass(slots=True, eq=False)
class _Log:
    name: str
    files: Files
    journal: Journal


@dataclass(slots=True, eq=False)
class _Append:
    """`end`: the offset after it, once it is written."""

    log: str
    batches: Sequence[Buffer]
    expected_tail: int
    time_ms: int
    answer: "_Answer"
    end: int = 0


@dataclass(slots=True, eq=False)
class _Task:
    """Something else that only the writer may do."""

    work: Callable[[], Any]
    answer: "_Answer"


class _Answer:
    """A future of the loop, completed by another thread."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def give(self, result: object) -> None:
        """On the loop: an exception is set as one."""
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class SegmentTopics:
    """The logs under one directory. Used from one event loop; `close` ends its threads."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        files: Callable[[Path], Files] = DirectoryFiles,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._files = files
        self._logs: dict[str, _Log] = {}
        self._logs_guard = threading.Lock()
        self._awake: OrderedDict[str, _Log] = OrderedDict()
        self._group: GroupCommit[_Append | _Task] = GroupCommit()
        self._arrived = threading.Condition()
        self._closing = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"{directory} cannot be used: {error.strerror}") from error
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="topic-read")
        self._writer = threading.Thread(target=self._write, name="topic-write", daemon=True)
        self._writer.start()

    # -- the interface

    def append(
        self, log: str, batches: Sequence[Buffer], *, expected_tail: int, time_ms: int
    ) -> asyncio.Future[int]:
        append = _Append(check_log_name(log), batches, expected_tail, time_ms, _Answer())
        self._enqueue(append, sum(map(len, batches)))
        return append.answer.future

    async def read(self, log: str, offset: int, max_bytes: int) -> Chunk:
        return await self._on_reader(self._read, check_log_name(log), offset, max_bytes)

    async def offset_at(self, log: str, time_ms: int) -> int:
        return await self._on_reader(self._offset_at, check_log_name(log), time_ms)

    async def bounds(self, log: str) -> Bounds:
        return await self._on_reader(self._bounds, check_log_name(log))

    async def trim(self, log: str, before: int, *, down_to: int = 0) -> Bounds:
        name = check_log_name(log)
        return await self._on_writer(lambda: self._trim(name, before, down_to))

    async def delete(self, log: str) -> None:
        name = check_log_name(log)
        await self._on_writer(lambda: self._delete(name))

    async def names(self) -> list[str]:
        return await self._on_reader(
            lambda: sorted(each.name for each in self._directory.iterdir() if each.is_dir())
        )

    async def close(self) -> None:
        """Write and sync what waits, then end the threads; safe to call twice."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        await asyncio.to_thread(self._join)

    # -- handing over to the threads

    def _enqueue(self, member: _Append | _Task, size: int) -> None:
        with self._arrived:
            if self._closing:
                raise StorageFailed("the logs are closed")
            self._group.add(member, size)
            self._arrived.notify()

    async def _on_writer(self, work: Callable[[], Result]) -> Result:
        task = _Task(work, _Answer())
        self._enqueue(task, 0)
        result: Result = await task.answer.future
        return result

    async def _on_reader(self, work: Callable[..., Result], *arguments: object) -> Result:
        if self._closing:
            raise StorageFailed("the logs are closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)
        except OSError as error:
            raise StorageFailed(f"the disk refused a read: {error.strerror}") from error

    def _join(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        for log in self._logs.values():
            log.journal.close()
        self._logs.clear()

    # -- the writer's thread

    def _write(self) -> None:
        while True:
            with self._arrived:
                while not self._group and not self._closing:
                    self._arrived.wait()
                group = self._group.take_group()
            if not group:
                return
            self._write_group(group)

    def _write_group(self, group: list[_Append | _Task]) -> None:
        written: dict[_Log, list[_Append]] = {}
        for member in group:
            if isinstance(member, _Task):
                self._sync(written)
                self._answer([(member.answer, _outcome(member.work))])
                continue
            try:
                log = self._log(member.log, create=True)
                assert log is not None
                self._append(log, member)
                written.setdefault(log, []).append(member)
            except Exception as error:
                self._answer([(member.answer, _named(error))])
        self._sync(written)

    def _append(self, log: _Log, member: _Append) -> None:
        journal = log.journal
        if journal.written_end != member.expected_tail:
            raise Conflict(f"the log ends at {journal.written_end}, not {member.expected_tail}")
        if journal.failed:
            journal.recover()
            if journal.written_end != member.expected_tail:
                raise Conflict(f"the log ends at {journal.written_end}, not {member.expected_tail}")
        journal.append(member.batches, time_ms=member.time_ms)
        member.end = journal.written_end
        self._keep_awake(log)

    def _sync(self, written: dict[_Log, list[_Append]]) -> None:
        """Make durable what was written, log by log, and answer each as soon as it is."""
        for log, members in written.items():
            failure: BaseException | None = None
            try:
                log.journal.sync()
            except Exception as error:
                failure = _named(error)
            end = log.journal.end
            self._answer(
                [
                    (each.answer, each.end if each.end <= end else failure or _lost())
                    for each in members
                ]
            )
        written.clear()

    def _keep_awake(self, log: _Log) -> None:
        self._awake[log.name] = log
        self._awake.move_to_end(log.name)
        if len(self._awake) > _AWAKE:
            name, oldest = next(iter(self._awake.items()))
            oldest.journal.rest()
            del self._awake[name]

    def _trim(self, name: str, before: int, down_to: int) -> Bounds:
        log = self._log(name)
        if log is None:
            return Bounds(0, 0, 0)
        log.journal.trim(before, down_to=down_to)
        return Bounds(*log.journal.bounds())

    def _delete(self, name: str) -> None:
        with self._logs_guard:
            log = self._logs.pop(name, None)
            self._awake.pop(name, None)
            if log is not None:
                log.journal.close()
            directory = self._directory / name
            if directory.is_dir():
                shutil.rmtree(directory)
                sync_directory(self._directory)

    def _answer(self, answers: list[tuple[_Answer, object]]) -> None:
        def deliver() -> None:
            for answer, result in answers:
                answer.give(result)

        try:
            answers[0][0].loop.call_soon_threadsafe(deliver)
        except RuntimeError:
            logger.debug("the loop ended before %d answers", len(answers))

    # -- the readers' threads

    def _read(self, name: str, offset: int, max_bytes: int) -> Chunk:
        for _ in range(_READ_ATTEMPTS):
            log = self._log(name)
            if log is None:
                if offset > 0:
                    raise OffsetBeyondEnd(f"offset {offset} is beyond the end, 0")
                return Chunk((), 0)
            try:
                return self._read_log(log, offset, max_bytes)
            except FileNotFoundError:
                # Trimmed or deleted since it was located.
                continue
        raise StorageFailed("a segment of the log is missing")

    def _read_log(self, log: _Log, offset: int, max_bytes: int) -> Chunk:
        place = log.journal.locate(offset)
        if place is not None and not place.indexed:
            log.journal.install(place, index_of(log.files, place.extent, base=place.base))
            place = log.journal.locate(offset)
        if place is None:
            return Chunk((), offset)
        return read_place(log.files, place, max_bytes)

    def _offset_at(self, name: str, time_ms: int) -> int:
        log = self._log(name)
        return offset_at(log.files, log.journal.extents(), time_ms) if log else 0

    def _bounds(self, name: str) -> Bounds:
        log = self._log(name)
        return Bounds(*log.journal.bounds()) if log else Bounds(0, 0, 0)

    # -- any thread

    def _log(self, name: str, *, create: bool = False) -> _Log | None:
        """The log of that name; None if there is none and none is wanted."""
        log = self._logs.get(name)
        if log is not None:
            return log
        with self._logs_guard:
            return self._logs.get(name) or self._open(name, create=create)

    def _open(self, name: str, *, create: bool) -> _Log | None:
        directory = self._directory / name
        if not directory.is_dir():
            if not create:
                return None
            try:
                directory.mkdir(mode=0o700)
                sync_directory(self._directory)
            except OSError as error:
                raise StorageFailed(f"a log cannot be made: {error.strerror}") from error
        files = self._files(directory)
        journal = Journal.open(files, segment_bytes=self._segment_bytes, guard=threading.Lock())
        log = self._logs[name] = _Log(name, files, journal)
        return log


def _outcome(work: Callable[[], Any]) -> object:
    try:
        return work()
    except Exception as error:
        return _named(error)


def _named(error: Exception) -> SthError:
    if isinstance(error, SthError):
        return error
    logger.error("a write failed", exc_info=error)
    return StorageFailed(f"the disk refused a write: {error}", hint="see the broker's log")


def _lost() -> StorageFailed:
    return StorageFailed("a later write of the same group failed", hint="try again")
