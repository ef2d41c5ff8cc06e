"""Small files that survive a power cut whole or not at all, readable by their owner only."""

import json
import os
from pathlib import Path
from typing import Any

from sth_protocol.errors import Misconfigured
from sth_protocol.files import sync_directory


def make_private_directory(path: Path) -> Path:
    """The directory, made with mode 0700 if it was not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write by rename, mode 0600. `durable`: synced, so that it is there after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    if durable:
        sync_directory(path.parent)


def write_private_json(path: Path, value: object, *, durable: bool = True) -> None:
    write_private(path, json.dumps(value).encode(), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of ours, None without one; Misconfigured if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise Misconfigured(f"{path} does not hold a JSON object")
    return value
