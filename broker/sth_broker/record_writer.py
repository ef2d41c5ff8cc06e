"""Writes records behind the back of those who change them, in order, the newest value only.

State changes come from notifications, which cannot wait for a disk; those who must know that a
change is safe wait for `durable`."""

import asyncio
import logging

from sth_broker.store.interface import Records
from sth_protocol.errors import StorageFailed
from sth_protocol.model import Json

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class RecordWriter:
    """One task that writes what changed since it last looked. `retry`: seconds until it tries again
    what the storage refused. A record that no storage could take is logged and given up: it must
    not hold up all others."""

    def __init__(self, records: Records, *, retry: float = RETRY_SECONDS) -> None:
        self._records = records
        self._retry = retry
        # None: the record is to be deleted.
        self._dirty: dict[str, Json | None] = {}
        self._wanted = 0
        self._written = 0
        self._changed = asyncio.Event()
        self._progress = asyncio.Condition()
        self._failure: StorageFailed | None = None
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="record writer")

    def put(self, key: str, value: Json) -> None:
        """Have `value` written soon."""
        self._change(key, value)

    def delete(self, key: str) -> None:
        """Have the record removed soon."""
        self._change(key, None)

    @property
    def changes(self) -> int:
        """How many there have been until now."""
        return self._wanted

    async def durable(self, changes: int | None = None) -> None:
        """Return when the first `changes`, by default all until now, are on disk; StorageFailed if
        it refuses."""
        target = self._wanted if changes is None else changes
        async with self._progress:
            await self._progress.wait_for(
                lambda: self._written >= target or self._failure is not None
            )
        if self._written < target and self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Write the rest, once, and end."""
        self._closing = True
        self._changed.set()
        await self._task

    def _change(self, key: str, value: Json | None) -> None:
        # Taken out first, so that the newest change is also the last in order.
        self._dirty.pop(key, None)
        self._dirty[key] = value
        self._wanted += 1
        self._failure = None
        self._changed.set()

    async def _run(self) -> None:
        while not (self._closing and not self._dirty):
            await self._changed.wait()
            self._changed.clear()
            batch, self._dirty, target = self._dirty, {}, self._wanted
            try:
                await self._write(batch)
            except StorageFailed as error:
                # What is newer wins over what could not be written.
                self._dirty = {**batch, **self._dirty}
                logger.error("cannot write %d records: %s", len(batch), error)
                await self._report(error)
                if self._closing:
                    return
                await asyncio.sleep(self._retry)
                self._changed.set()
            else:
                self._written = target
                await self._report(None)

    async def _write(self, batch: dict[str, Json | None]) -> None:
        # Together, so that the store makes one commit of them.
        results = await asyncio.gather(
            *(
                self._records.delete(key) if value is None else self._records.put(key, value)
                for key, value in batch.items()
            ),
            return_exceptions=True,
        )
        failure: StorageFailed | None = None
        for key, result in zip(batch, results, strict=True):
            if isinstance(result, StorageFailed):
                failure = result
            elif isinstance(result, BaseException):
                logger.error("record %s cannot be written at all", key, exc_info=result)
        if failure is not None:
            raise failure

    async def _report(self, failure: StorageFailed | None) -> None:
        async with self._progress:
            self._failure = failure
            self._progress.notify_all()
