"""A package from an HTTP body to the disk: written and hashed as it comes, then checked by another
process, since the archive is somebody else's.

A package exists only when it is complete and sound; anything else leaves no file behind."""

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sth_broker.store.interface import Packages
from sth_protocol.errors import BadPackage, Internal, StorageFailed, TooLarge, from_wire
from sth_protocol.model import Json

logger = logging.getLogger(__name__)

# What gathers before a thread is asked to write it.
WRITE_BYTES = 1024 * 1024
INSPECT_SECONDS = 30.0
MAX_INSPECTION_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete, sound package in a temporary file. `package`: its package.json; `language`:
    "python" or "node"; `size`: bytes of the archive."""

    path: Path
    sha256: str
    size: int
    language: str
    package: Json


class _HashedFile:
    """Writes and hashes in threads, one call after the other."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    async def write(self, chunks: list[bytes]) -> None:
        """A caller who is cancelled leaves when the thread has done with the file, not before."""
        task = asyncio.create_task(asyncio.to_thread(self._write, chunks))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    def digest(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()

    def _write(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            remaining = memoryview(chunk)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
            self._hash.update(chunk)
            self.size += len(chunk)


@asynccontextmanager
async def receive_package(
    chunks: AsyncIterator[bytes], packages: Packages, *, max_bytes: int
) -> AsyncIterator[Upload]:
    """A whole package out of `chunks` (an error they raise ends it), to be moved into the store
    within the context; what is still there at its end is removed. TooLarge, BadPackage."""
    path = packages.temporary()
    try:
        sha256, size = await _write(chunks, path, max_bytes=max_bytes)
        if size == 0:
            raise BadPackage("the package is empty", hint="send a tar.gz with a package.json")
        found = await inspect(path)
        yield Upload(
            path=path,
            sha256=sha256,
            size=size,
            language=found["language"],
            package=found["package"],
        )
    finally:
        # Not in a thread: a cancelled request must not leave before it is done.
        path.unlink(missing_ok=True)


async def _write(chunks: AsyncIterator[bytes], path: Path, *, max_bytes: int) -> tuple[str, int]:
    try:
        with closing(_HashedFile(path)) as file:
            gathered: list[bytes] = []
            gathered_bytes = received = 0
            async for chunk in chunks:
                gathered.append(chunk)
                gathered_bytes += len(chunk)
                received += len(chunk)
                if received > max_bytes:
                    raise TooLarge(f"the package is larger than {max_bytes} bytes")
                if gathered_bytes >= WRITE_BYTES:
                    await file.write(gathered)
                    gathered, gathered_bytes = [], 0
            await file.write(gathered)
            return file.digest(), file.size
    except OSError as error:
        raise StorageFailed(f"the disk refused the package: {error.strerror}") from error


async def inspect(path: Path) -> Json:
    """What an archive holds, `{package, language, ...}`; BadPackage and its kin say why not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sth_sandbox.unpack", "inspect", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(INSPECT_SECONDS):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise BadPackage("the archive takes too long to read") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _inspection(output, complaint)


def _inspection(output: bytes, complaint: bytes) -> Json:
    try:
        found = json.loads(output[:MAX_INSPECTION_BYTES])
    except ValueError:
        # It dies without a word when the archive drives it against its limits.
        text = complaint.decode(errors="replace").strip()
        logger.warning("the inspection of a package ended without an answer: %s", text[-2000:])
        raise BadPackage("the archive cannot be read") from None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        raise from_wire(found["error"])
    match found:
        case {"package": dict(), "language": "python" | "node"}:
            pass
        case _:
            raise Internal("the inspection of a package told nothing of it")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except ValueError:
        raise BadPackage("package.json has text that is not Unicode") from None
    inspected: Json = found
    return inspected
