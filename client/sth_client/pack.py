"""A directory as a Sequence package: a tar.gz whose bytes depend on nothing but its content.

Entries stand at the top, sorted, with no times and no owners, so that packing twice gives the same
SHA-256. Only what a broker takes goes in: directories and regular files. A symbolic link becomes
what it points to; one that leaves the directory is refused.
"""

import contextlib
import gzip
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sth_client import ignore
from sth_client.bodies import Octets, Package, Readable
from sth_protocol.errors import BadPackage

MANIFEST = "package.json"
# Up to this it stays in memory; a larger package goes to a temporary file.
SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """`name`: its path in the package; `path`: where it is read, links resolved."""

    name: str
    path: Path
    is_directory: bool
    executable: bool


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed: for the words of a command."""

    name: str
    version: str
    files: int


@contextlib.contextmanager
def open_package(package: Package) -> Iterator[Octets | Readable]:
    """A package ready to send: a directory is packed, a path to a file is opened, the rest is as
    it is. BadPackage names what cannot be packed."""
    if not isinstance(package, str | os.PathLike):
        yield package
        return
    path = Path(package)
    if not path.is_dir():
        with _open_archive(path) as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        pack(path, spool)
        spool.seek(0)
        yield spool


def pack(directory: Path, target: "BinaryIO | tempfile.SpooledTemporaryFile[bytes]") -> Packed:
    """Write the package of `directory` to `target`. BadPackage names what is in the way."""
    manifest = _read_manifest(directory)
    entries = list_entries(directory)
    _check_main(manifest, entries, directory)
    with (
        # The gzip header would otherwise carry the time and the name of the file.
        gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries:
            _add(archive, entry)
    files = sum(not each.is_directory for each in entries)
    return Packed(str(manifest.get("name") or ""), str(manifest.get("version") or ""), files)


def list_entries(directory: Path) -> list[Entry]:
    """What belongs into the package of `directory`, sorted by name."""
    top = directory.resolve()
    try:
        lines = (top / ignore.FILE_NAME).read_text("utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise BadPackage(f"{ignore.FILE_NAME} cannot be read: {error}") from error
    rules = ignore.parse_rules(lines)
    return sorted(_walk(top, top, "", rules, (top,)), key=lambda each: each.name)


def _walk(
    top: Path,
    directory: Path,
    prefix: str,
    rules: tuple[ignore.Rule, ...],
    ancestors: tuple[Path, ...],
) -> Iterator[Entry]:
    for child in _children(directory, prefix):
        name = prefix + child.name
        if ignore.leaves_out(rules, name, is_directory=child.is_dir()):
            continue
        path = _resolve(top, child, name)
        mode = path.stat().st_mode
        is_directory = stat.S_ISDIR(mode)
        if not is_directory and not stat.S_ISREG(mode):
            raise BadPackage(f"{name} is neither a file nor a directory", hint=_LEAVE_OUT)
        yield Entry(name, path, is_directory, bool(mode & stat.S_IXUSR))
        if is_directory:
            if path in ancestors:
                raise BadPackage(f"{name} is a link to a directory it is in", hint=_LEAVE_OUT)
            yield from _walk(top, path, f"{name}/", rules, (*ancestors, path))


_LEAVE_OUT = f"remove it, or name it in {ignore.FILE_NAME}"


def _children(directory: Path, prefix: str) -> list[Path]:
    try:
        children = list(directory.iterdir())
    except OSError as error:
        raise BadPackage(f"{prefix or directory} cannot be listed: {error.strerror}") from error
    for child in children:
        try:
            child.name.encode()
        except UnicodeEncodeError:
            raise BadPackage(
                f"{prefix}{child.name!a} is not a name in UTF-8", hint="rename it"
            ) from None
    return children


def _resolve(top: Path, child: Path, name: str) -> Path:
    if not child.is_symlink():
        return child
    try:
        path = child.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BadPackage(f"{name} is a link that leads nowhere", hint=_LEAVE_OUT) from error
    if not path.is_relative_to(top):
        raise BadPackage(f"{name} is a link that leaves the package", hint=_LEAVE_OUT)
    return path


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    if entry.is_directory:
        member.type = tarfile.DIRTYPE
        member.mode = 0o755
        archive.addfile(member)
        return
    member.mode = 0o755 if entry.executable else 0o644
    try:
        with entry.path.open("rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            archive.addfile(member, file)
    except OSError as error:  # also a file that became shorter meanwhile
        raise BadPackage(f"{entry.name} cannot be packed: {error.strerror or error}") from error


def _read_manifest(directory: Path) -> dict[str, object]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadPackage(
            f"{directory} has no {MANIFEST}",
            hint='the least is {"main": "index.js"}, for Python '
            '{"main": "main.py", "engines": {"python3": ">=3.11"}}',
        ) from None
    except OSError as error:
        raise BadPackage(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadPackage(f"{path} is not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise BadPackage(f"{path} is not a JSON object")
    return manifest


def _check_main(manifest: dict[str, object], entries: list[Entry], directory: Path) -> None:
    main = manifest.get("main")
    if not isinstance(main, str) or not main:
        raise BadPackage(
            f"{directory / MANIFEST} names no `main`", hint="name the file that is run"
        )
    name = os.path.normpath(main)
    # Node finds a module without its ending, and a directory by its index.
    candidates = {name, f"{name}.js", f"{name}.py", f"{name}/index.js"}
    if not any(each.name in candidates and not each.is_directory for each in entries):
        raise BadPackage(
            f"{directory / MANIFEST} names {main} as `main`, which is not in the package",
            hint=f"check the name, and that {ignore.FILE_NAME} does not leave it out",
        )


def _open_archive(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BadPackage(
            f"there is no {path}", hint="give a directory with a package.json, or a .tar.gz"
        ) from None
    except OSError as error:
        raise BadPackage(f"{path} cannot be read: {error.strerror}") from error
    if file.peek(2)[:2] != b"\x1f\x8b":
        file.close()
        raise BadPackage(f"{path} is not a .tar.gz", hint="give a directory with a package.json")
    return file
