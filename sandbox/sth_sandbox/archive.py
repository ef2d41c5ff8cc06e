"""Walks a package's archive and refuses everything but plain files and folders.

`tarfile` is used as a parser of one header at a time and nothing more: its extraction follows
links of hostile archives out of the destination, with its filters too.

Refused: links, devices, fifos, sparse files, setuid and setgid files, absolute names, `..`, names
twice or differing by case only, and whatever is more than the rules allow. One exception:
symbolic links in a folder node_modules/.bin, which npm makes and no program imports, are skipped.
"""

import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from sth_sandbox.errors import SandboxError, bad_package
from sth_sandbox.gunzip import Gunzip

_BLOCK = 512
_PIECE = 256 * 1024
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_REFUSED_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a fifo",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_SKIPPED_LINKS = ("node_modules", ".bin")
# A member may have a few extended headers before its own.
_HEADERS_A_MEMBER = 4
_SET_ID = 0o6000
_EXECUTABLE = 0o111


@dataclass(frozen=True, slots=True)
class Rules:
    """What an archive may have. In bytes, but for `members` and `depth`, the parts of a path.

    `name`: one part of a path; `padding`: behind the archive's end.
    """

    members: int = 20_000
    content: int = 512 * 1024 * 1024
    path: int = 1024
    name: int = 255
    depth: int = 32
    extended_header: int = 64 * 1024
    padding: int = 16 * 1024 * 1024

    @property
    def stream(self) -> int:
        """Everything that may come out of the decompressor: content, headers, padding."""
        return self.content + self.members * 8 * _BLOCK + self.padding


class Sink(Protocol):
    """Where members go. Folders come before what is in them, each once."""

    def folder(self, path: tuple[str, ...]) -> None: ...

    def file(self, path: tuple[str, ...], executable: bool, pieces: Iterator[bytes]) -> None: ...


@dataclass(slots=True)
class Totals:
    files: int = 0
    bytes: int = 0
    skipped: int = 0
    sha256: str = ""


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next member."""

    path: str | None = None
    size: int | None = None


@dataclass(slots=True)
class _Names:
    """Every path so far, by what a file system without cases would make of it."""

    seen: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = field(default_factory=dict)

    def add(self, path: tuple[str, ...], kind: str) -> bool:
        """Whether the path is new. Parents must be there, and folders."""
        key = tuple(unicodedata.normalize("NFC", part).casefold() for part in path)
        known = self.seen.get(key)
        if known is None:
            self.seen[key] = path, kind
            return True
        if known[0] != path:
            raise _refuse(path, f"differs only by case from {'/'.join(known[0])!r}")
        if known[1] != kind:
            raise _refuse(path, "is a file and a folder at once")
        return False


def walk(source: Gunzip, sink: Sink, rules: Rules) -> Totals:
    """Give every member to the sink; SandboxError BAD_PACKAGE names the one that is wrong."""
    return _Walk(source, sink, rules).run()


class _Walk:
    def __init__(self, source: Gunzip, sink: Sink, rules: Rules) -> None:
        self._source = source
        self._sink = sink
        self._rules = rules
        self._names = _Names()
        self._explicit: set[tuple[str, ...]] = set()
        self._totals = Totals()
        self._members = 0
        self._headers = 0

    def run(self) -> Totals:
        extended = _Extended()
        while (header := self._next_header()) is not None:
            self._headers += 1
            if self._headers > _HEADERS_A_MEMBER * self._rules.members:
                raise bad_package("the archive has too many headers")
            if header.type in _PAX_TYPES:
                self._read_pax(header, extended)
            elif header.type == tarfile.XGLTYPE:
                self._read_pax(header, None)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                extended.path = _text(self._read_extended(header).rstrip(b"\0"))
            elif header.type == tarfile.GNUTYPE_LONGLINK:
                self._read_extended(header)
            else:
                self._member(header, extended)
                extended = _Extended()
        self._totals.sha256 = self._source.finish(padding=self._rules.padding)
        return self._totals

    def _next_header(self) -> tarfile.TarInfo | None:
        block = self._source.read_exactly(_BLOCK)
        if not block:
            return None
        if len(block) < _BLOCK:
            raise bad_package("the archive is cut off", hint="send it again, whole")
        if not block.strip(b"\0"):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise bad_package(f"not a valid tar archive: {error}") from error
        if header.size < 0:
            raise bad_package("not a valid tar archive: a negative size")
        return header

    def _member(self, header: tarfile.TarInfo, extended: _Extended) -> None:
        self._members += 1
        if self._members > self._rules.members:
            raise bad_package(f"the archive has more than {self._rules.members} members")
        name = header.name if extended.path is None else extended.path
        size = header.size if extended.size is None else extended.size
        folder = header.type == tarfile.DIRTYPE
        if extended.path is not None and header.type in _FILE_TYPES and name.endswith("/"):
            folder = True
        path = checked_path(name, self._rules)
        if header.type == tarfile.SYMTYPE and path[-3:-1] == _SKIPPED_LINKS:
            self._totals.skipped += 1
            return
        if header.type in _REFUSED_TYPES:
            raise _refuse(path, f"is {_REFUSED_TYPES[header.type]}")
        if not folder and header.type not in _FILE_TYPES:
            raise _refuse(path, "is neither a file nor a folder")
        if path in self._explicit:
            raise _refuse(path, "is there twice")
        if path:
            self._explicit.add(path)
        if folder:
            self._folders(path)
        elif not path:
            raise bad_package("a file without a name")
        else:
            self._file(path, header.mode, size)

    def _folders(self, path: tuple[str, ...]) -> None:
        """This one and its parents, where they are not there yet."""
        for end in range(1, len(path) + 1):
            if self._names.add(path[:end], "folder"):
                self._sink.folder(path[:end])

    def _file(self, path: tuple[str, ...], mode: int, size: int) -> None:
        if mode & _SET_ID:
            raise _refuse(path, "has a setuid or setgid bit")
        self._folders(path[:-1])
        if not self._names.add(path, "file"):
            raise _refuse(path, "is there twice")
        self._totals.files += 1
        self._totals.bytes += size
        if self._totals.bytes > self._rules.content:
            raise _refuse(path, f"the files are more than {self._rules.content} bytes in all")
        pieces = self._pieces(size)
        self._sink.file(path, bool(mode & _EXECUTABLE), pieces)
        for _ in pieces:
            pass
        self._source.read_exactly(-size % _BLOCK)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._source.read(min(size, _PIECE))
            if not piece:
                raise bad_package("the archive is cut off", hint="send it again, whole")
            size -= len(piece)
            yield piece

    def _read_extended(self, header: tarfile.TarInfo) -> bytes:
        if header.size > self._rules.extended_header:
            raise bad_package("an extended header of the archive is too long")
        data = self._source.read_exactly(header.size)
        self._source.read_exactly(-header.size % _BLOCK)
        return data

    def _read_pax(self, header: tarfile.TarInfo, extended: _Extended | None) -> None:
        """`extended` is None for a global header, which may not rename or resize members."""
        for key, value in _pax_records(self._read_extended(header)):
            if key.startswith("GNU.sparse"):
                raise bad_package("the archive has sparse files")
            if key not in ("path", "size"):
                continue
            if extended is None:
                raise bad_package(f"a global header of the archive sets {key}")
            if key == "path":
                extended.path = value
            elif value.isascii() and value.isdigit() and len(value) < 20:
                extended.size = int(value)
            else:
                raise bad_package("an extended header of the archive has a wrong size")


def checked_path(name: str, rules: Rules) -> tuple[str, ...]:
    """The parts of a member's name; () for the root itself."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise _refuse((name.encode(errors="replace").decode(),), "is not UTF-8") from None
    if name.startswith("/"):
        raise _refuse((name,), "has an absolute name")
    if len(encoded) > rules.path:
        raise _refuse((name[:80] + "...",), f"has a name of more than {rules.path} bytes")
    path = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in path:
        raise _refuse(path, "leads out of the package")
    if len(path) > rules.depth:
        raise _refuse(path, f"is more than {rules.depth} folders deep")
    if any(len(part.encode()) > rules.name for part in path):
        raise _refuse(path, f"has a part of more than {rules.name} bytes")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise _refuse(path, "has a control character in its name")
    return path


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records are 'LENGTH KEY=VALUE\\n', the length counting all of it."""
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = data[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not space or not equals or length > len(data) or not record.endswith(b"\n"):
            raise bad_package("an extended header of the archive is broken")
        yield _text(key), _text(value[:-1])
        data = data[length:]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _refuse(path: tuple[str, ...], what: str) -> SandboxError:
    return bad_package(f"member {'/'.join(path)[:200]!r} {what}")
