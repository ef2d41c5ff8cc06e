"""Packing a directory."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from sth_client.pack import open_package, pack
from sth_protocol.errors import BadPackage


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "package"
    (path / "lib").mkdir(parents=True)
    (path / "empty").mkdir()
    (path / "package.json").write_text('{"name": "p", "version": "1", "main": "main.py"}')
    (path / "main.py").write_text("def run(context, input): pass\n")
    (path / "lib" / "tool").write_text("#!/bin/sh\n")
    (path / "lib" / "tool").chmod(0o700)
    return path


def packed(directory: Path) -> bytes:
    target = io.BytesIO()
    pack(directory, target)
    return target.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return archive.getmembers()


def test_entries_stand_at_the_top_sorted(directory: Path) -> None:
    names = [each.name for each in members(packed(directory))]
    assert names == ["empty", "lib", "lib/tool", "main.py", "package.json"]


def test_same_content_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    first = packed(directory)
    os.utime(directory / "main.py", (1, 1))
    (directory / "main.py").chmod(0o640)
    other = tmp_path / "elsewhere"
    directory.rename(other)
    assert hashlib.sha256(packed(other)).digest() == hashlib.sha256(first).digest()


def test_nothing_of_the_machine_is_in_it(directory: Path) -> None:
    for each in members(packed(directory)):
        assert (each.mtime, each.uid, each.gid, each.uname, each.gname) == (0, 0, 0, "", "")
    modes = {each.name: each.mode for each in members(packed(directory))}
    assert (modes["lib/tool"], modes["main.py"], modes["lib"]) == (0o755, 0o644, 0o755)


def test_siignore_leaves_out_files_and_itself(directory: Path) -> None:
    (directory / ".siignore").write_text("lib\n*.pyc\n")
    (directory / "a.pyc").touch()
    names = [each.name for each in members(packed(directory))]
    assert names == ["empty", "main.py", "package.json"]


def test_link_inside_becomes_what_it_points_to(directory: Path) -> None:
    (directory / "link.py").symlink_to("main.py")
    (directory / "more").symlink_to("lib")
    found = {each.name: each for each in members(packed(directory))}
    assert found["link.py"].isreg()
    assert found["link.py"].size == found["main.py"].size
    assert found["more/tool"].isreg()


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "lib/../../outside"])
def test_link_that_leaves_is_refused_by_name(directory: Path, target: str) -> None:
    (directory.parent / "outside").write_text("secret")
    (directory / "leak").symlink_to(target)
    with pytest.raises(BadPackage, match="leak is a link that leaves the package"):
        packed(directory)


def test_link_to_nowhere_and_in_a_circle_are_refused(directory: Path) -> None:
    (directory / "lost").symlink_to("nothing")
    with pytest.raises(BadPackage, match="lost is a link that leads nowhere"):
        packed(directory)
    (directory / "lost").unlink()
    (directory / "one").symlink_to("two")
    (directory / "two").symlink_to("one")
    with pytest.raises(BadPackage, match="leads nowhere"):
        packed(directory)


def test_directory_that_links_to_itself_is_refused(directory: Path) -> None:
    (directory / "lib" / "again").symlink_to("..")
    with pytest.raises(BadPackage, match="lib/again is a link to a directory it is in"):
        packed(directory)


def test_ignored_links_do_not_matter(directory: Path) -> None:
    (directory / "leak").symlink_to("/etc/hostname")
    (directory / ".siignore").write_text("leak\n")
    assert "leak" not in [each.name for each in members(packed(directory))]


def test_special_file_is_refused_by_name(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    with pytest.raises(BadPackage, match="pipe is neither a file nor a directory"):
        packed(directory)


def test_name_that_is_no_unicode_is_refused(directory: Path) -> None:
    with open(os.fsencode(directory) + b"/bad\xff", "wb"):
        pass
    with pytest.raises(BadPackage, match="not a name in UTF-8"):
        packed(directory)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "has no package.json"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "names no `main`"),
        ('{"main": 3}', "names no `main`"),
        ('{"main": "gone.py"}', "which is not in the package"),
        ('{"main": "../main.py"}', "which is not in the package"),
    ],
)
def test_manifest_that_cannot_work_is_refused(
    directory: Path, manifest: str | None, message: str
) -> None:
    (directory / "package.json").unlink()
    if manifest is not None:
        (directory / "package.json").write_text(manifest)
    with pytest.raises(BadPackage, match=message):
        packed(directory)


@pytest.mark.parametrize("main", ["./main.py", "main", "lib/../main.py"])
def test_main_may_be_written_in_other_ways(directory: Path, main: str) -> None:
    (directory / "package.json").write_text(f'{{"main": "{main}"}}')
    assert packed(directory)


def test_archive_is_sent_as_it_is(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    path.write_bytes(packed(directory))
    with open_package(path) as source:
        assert not isinstance(source, bytes | bytearray | memoryview)
        assert source.read(-1) == path.read_bytes()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(BadPackage, match=r"is not a \.tar\.gz"), open_package(tmp_path / "file"):
        pass
    with pytest.raises(BadPackage, match="there is no"), open_package(tmp_path / "none"):
        pass
