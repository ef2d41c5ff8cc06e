"""Archives for tests, honest and hostile, made member by member."""

import contextlib
import gzip
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator

Member = tuple[tarfile.TarInfo, bytes]
PACKAGE_JSON = b'{"main": "main.py", "engines": {"python3": "3"}}'


def file(name: str, data: bytes = b"x", *, mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = mode
    return info, data


def folder(name: str) -> Member:
    return special(name, tarfile.DIRTYPE, mode=0o755)


def special(name: str, kind: bytes, *, link: str = "", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.mode = mode
    return info, b""


def symlink(name: str, target: str) -> Member:
    return special(name, tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> Member:
    return special(name, tarfile.LNKTYPE, link=target)


BASE = (file("package.json", PACKAGE_JSON), file("main.py", b"def run(context, input): pass\n"))


def pack(members: Iterable[Member], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A gzipped tar of these and nothing else."""
    return gzip.compress(plain(members, format=format), 1)


def plain(members: Iterable[Member], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def package(*members: Member) -> bytes:
    """A valid package with these members after its own."""
    return pack((*BASE, *members))


def changed(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """An archive of one member whose header was changed, with a right checksum."""
    header = bytearray(data[:512])
    change(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def gzip_of_zeros(count: int) -> bytes:
    """A member of `count` zeros, compressed a thousandfold and made without the memory."""
    info = tarfile.TarInfo("zeros")
    info.size = count
    output = io.BytesIO()
    with gzip.GzipFile(fileobj=output, mode="wb", compresslevel=6, mtime=0) as stream:
        stream.write(info.tobuf())
        block = bytes(1 << 20)
        for _ in range(count >> 20):
            stream.write(block)
        stream.write(bytes(1024))
    return output.getvalue()


def lying_gzip_of_zeros(count: int) -> bytes:
    """The same behind a header that declares a small file: the zeros are the archive's end."""
    info = tarfile.TarInfo("small")
    output = io.BytesIO()
    with gzip.GzipFile(fileobj=output, mode="wb", compresslevel=6, mtime=0) as stream:
        stream.write(info.tobuf())
        block = bytes(1 << 20)
        for _ in range(count >> 20):
            stream.write(block)
    return output.getvalue()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[int]:
    """A descriptor of a file with these bytes."""
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        yield stream.fileno()
