"""The embedded store: everything in one directory of this machine."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from sth_broker.store.interface import Packages, Records, Topics
from sth_broker.store.packages import FilePackages
from sth_broker.store.records import SqliteRecords
from sth_broker.store.segments import SegmentTopics
from sth_protocol.errors import Conflict, StorageFailed


@dataclass(frozen=True, slots=True)
class Store:
    """An open store; `close` it. The three parts are what the rest of the broker sees."""

    records: Records
    topics: Topics
    packages: Packages
    _records: SqliteRecords
    _topics: SegmentTopics
    _lock: int

    async def close(self) -> None:
        """Finish what waits and let go of the directory."""
        await self._topics.close()
        await self._records.close()
        os.close(self._lock)


def open_store(data: Path) -> Store:
    """The store in the directory `data`, made if it is not there. Call it on the event loop that
    will use it. Conflict if another process holds it, StorageFailed if the disk refuses."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailed(f"{data} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        records = SqliteRecords(data / "records.sqlite")
        topics = SegmentTopics(data / "topics")
        packages = FilePackages(data / "packages")
    except BlockingIOError:
        os.close(lock)
        raise Conflict(
            f"another process holds {data}", hint="stop it, or choose another --data"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return Store(records, topics, packages, records, topics, lock)
