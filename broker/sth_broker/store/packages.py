"""Packages as files by the hash of their content, under two digits of it."""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from sth_protocol.errors import NotFound, StorageFailed
from sth_protocol.files import sync_directory
from sth_protocol.ids import check_sha256

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class FilePackages:
    """The packages of one directory, which it makes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unfinished = directory / "unfinished"
        try:
            self._unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._unfinished.iterdir():
                left.unlink()
        except OSError as error:
            raise StorageFailed(f"{directory} cannot be used: {error.strerror}") from error

    def temporary(self) -> Path:
        return self._unfinished / secrets.token_hex(16)

    async def put_file(self, path: Path, sha256: str) -> None:
        await self._on_disk(lambda: self._put(path, check_sha256(sha256)))

    async def open(self, sha256: str) -> BinaryIO:
        path = self._path(sha256)
        return await self._on_disk(lambda: path.open("rb"))

    async def size(self, sha256: str) -> int:
        path = self._path(sha256)
        return await self._on_disk(lambda: path.stat().st_size)

    async def delete(self, sha256: str) -> bool:
        path = self._path(sha256)
        try:
            await self._on_disk(path.unlink)
        except NotFound:
            return False
        return True

    async def list(self) -> list[str]:
        return await self._on_disk(
            lambda: sorted(each.name for each in self._directory.glob("[0-9a-f][0-9a-f]/*"))
        )

    def _path(self, sha256: str) -> Path:
        return self._directory / check_sha256(sha256)[:2] / sha256

    def _put(self, path: Path, sha256: str) -> None:
        target = self._path(sha256)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory)
        os.rename(path, target)
        sync_directory(target.parent)

    async def _on_disk(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(work)
        except FileNotFoundError:
            raise NotFound("there is no such package") from None
        except OSError as error:
            raise StorageFailed(f"the disk refused a package: {error.strerror}") from error
