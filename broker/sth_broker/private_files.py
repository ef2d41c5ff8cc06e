"""Small files that must be whole or absent, and readable by nobody else: keys and certificates."""

import os
import secrets
from pathlib import Path

from sth_protocol.files import sync_directory


def make_private_directory(directory: Path) -> None:
    """`directory` with mode 0700, whatever mode it had."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def write_private(path: Path, data: bytes) -> None:
    """Put `data` in place of `path`, mode 0600: after a crash it is the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_or_create(path: Path, size: int) -> bytes:
    """`size` random bytes that stay the same from the first call on."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        write_private(path, secrets.token_bytes(size))
        return path.read_bytes()
