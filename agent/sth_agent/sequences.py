"""Packages of Sequences: fetched from the broker when the spawner does not have them.

The spawner keeps them by content, hashes and unpacks them itself; here a package only passes
through a temporary file.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sth_agent.channels import Channel, ChannelUser
from sth_agent.session import Session
from sth_agent.spawner_client import SpawnerClient
from sth_protocol.errors import Corrupt, SessionLost, SthError, StorageFailed

logger = logging.getLogger(__name__)


class Sequences:
    """Makes sure that a package is there; several starts of one package fetch it once."""

    def __init__(
        self, spawner: SpawnerClient, directory: Path, session: Callable[[], Session | None]
    ) -> None:
        self._spawner = spawner
        self._directory = directory
        self._session = session
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, sha256: str) -> None:
        """Returns when the spawner has the package; the error of fetching or unpacking it."""
        if await self._spawner.have(sha256):
            return
        task = self._fetching.get(sha256)
        if task is None:
            task = asyncio.create_task(self._fetch(sha256))
            self._fetching[sha256] = task
            task.add_done_callback(lambda _: self._fetching.pop(sha256, None))
        # One caller may give up; the others still want it.
        await asyncio.shield(task)

    async def _fetch(self, sha256: str) -> None:
        session = self._session()
        if session is None:
            raise SessionLost("there is no link to fetch the package over")
        try:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                download = PackageDownload(file.fileno(), sha256)
                download.begin(session)
                await download.done
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                await self._spawner.unpack(sha256, file.fileno())
        except OSError as error:
            raise StorageFailed(f"the package could not be stored: {error.strerror}") from None


class PackageDownload(ChannelUser):
    """One package on its way into a file. `done` resolves when it is whole and has its hash."""

    def __init__(self, descriptor: int, sha256: str) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._descriptor = descriptor
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self._channel: Channel | None = None

    def begin(self, session: Session) -> None:
        """Ask the broker for it."""
        self._channel = session.open({"kind": "package", "sha256": self._sha256}, self)

    def accepted(self, info: Mapping[str, Any]) -> None:
        """The broker has it."""

    def received(self, data: bytes, more: bool) -> None:
        assert self._channel is not None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._fail(StorageFailed(f"the package could not be stored: {error.strerror}"))
            return
        self._hash.update(data)
        self._channel.consume(len(data))

    def finished(self) -> None:
        assert self._channel is not None
        if self._hash.hexdigest() != self._sha256:
            self._fail(Corrupt("the package that came has another hash"))
            return
        self._channel.finish()
        if not self.done.done():
            self.done.set_result(None)

    def reset(self, error: SthError, consumed: int | None) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _fail(self, error: SthError) -> None:
        assert self._channel is not None
        self._channel.reset(error)
        self.reset(error, None)
