"""The broker's look into an archive: one JSON object, whatever the file is."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sandbox import archives
from tests.sandbox.archives import file, pack, package, symlink

from sth_sandbox import archive, gunzip
from sth_sandbox.errors import SandboxError
from sth_sandbox.unpack import inspect

Json = dict[str, Any]
MAIN = file("main.py", b"")


def inspected(path: Path) -> tuple[int, Json]:
    command = [sys.executable, "-m", "sth_sandbox.unpack", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def inspect_bytes(data: bytes, rules: archive.Rules = archive.Rules()) -> Json:  # noqa: B008
    with archives.opened(data) as descriptor:
        return dict(inspect(descriptor, rules))


def refusal(data: bytes, rules: archive.Rules = archive.Rules()) -> SandboxError:  # noqa: B008
    with pytest.raises(SandboxError) as refused:
        inspect_bytes(data, rules)
    return refused.value


def with_json(content: object) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return pack([file("package.json", text), MAIN, file("lib/index.js", b"")])


def test_inspect_command_shows_the_package(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(package(file("data", b"12345"), symlink("node_modules/.bin/x", "../y")))
    code, answer = inspected(path)
    assert code == 0
    assert answer["package"] == {"main": "main.py", "engines": {"python3": "3"}}
    assert answer["language"] == "python"
    assert answer["files"] == 3
    assert answer["bytes"] == 5 + sum(len(data) for _, data in archives.BASE)
    assert len(answer["sha256"]) == 64


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "BAD_PACKAGE"), (b"rubbish", "BAD_PACKAGE"), (None, "STORAGE_FAILED")],
)
def test_inspect_command_answers_errors_too(tmp_path: Path, data: bytes | None, code: str) -> None:
    path = tmp_path / "package.tar.gz"
    if data is not None:
        path.write_bytes(data)
    status, answer = inspected(path)
    assert status == 1
    assert answer["error"]["code"] == code
    assert set(answer["error"]) == {"code", "message", "hint"}


def test_inspect_command_without_a_file_to_look_at() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sth_sandbox.unpack"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["error"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"main": NaN}', "not JSON"),
        ([], "not a JSON object"),
        ({}, "no 'main'"),
        ({"main": 3}, "no 'main'"),
        ({"main": ""}, "no 'main'"),
        ({"main": "other.py"}, "not in the package"),
        ({"main": "lib", "engines": {"python3": "3"}}, "not in the package"),
        ({"main": "../main.py"}, "outside the package"),
        ({"main": "/main.py"}, "outside the package"),
        ({"main": "main.py", "name": 1}, "'name'"),
        ({"main": "main.py", "version": {}}, "'version'"),
        ({"main": "main.py", "author": {"name": "x"}}, "'author'"),
        ({"main": "main.py"}, "no engine python3"),
        ({"main": "main.py", "engines": []}, "'engines'"),
        ({"main": "main.py", "engines": {"node": 20}}, "'engines'"),
        ({"main": "main.py", "engines": {"node": "20", "npm": "10"}}, "more than one engine"),
        ({"main": "main.py", "keywords": "x"}, "'keywords'"),
        ({"main": "main.py", "keywords": [1]}, "'keywords'"),
        ({"main": "main.py", "args": {}}, "'args'"),
        ({"main": "main.py", "scramjet": []}, "'scramjet'"),
        ({"main": "main.py", "scramjet": {"config": []}}, "'scramjet'"),
        ({"main": "main.py", "scramjet": {"config": {"ports": ["80"]}}}, "port"),
        (b'{"main": "' + b"x" * 300_000 + b'"}', "more than"),
    ],
)
def test_inspect_refuses_package_json(content: object, complaint: str) -> None:
    error = refusal(with_json(content))
    assert error.code == "BAD_PACKAGE"
    assert complaint in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("content", "language"),
    [
        ({"main": "main.py", "engines": {"python3": ">=3.9"}}, "python"),
        ({"main": "./main.py", "engines": {"python3": ""}, "extra": {"any": 1}}, "python"),
        ({"main": "lib/index.js"}, "node"),
        ({"main": "lib/index", "engines": {"node": "18"}}, "node"),
        ({"main": "lib", "args": [1, "x", {}]}, "node"),
        ({"main": "lib/", "scramjet": {"config": {"ports": ["7006/tcp"]}}}, "node"),
    ],
)
def test_inspect_accepts_package_json(content: Json, language: str) -> None:
    answer = inspect_bytes(with_json(content))
    assert answer["language"] == language
    known = {name: value for name, value in content.items() if name != "extra"}
    assert answer["package"] == known


def test_inspect_wants_package_json_at_the_top() -> None:
    nested = refusal(pack([file("package/package.json", b'{"main": "main.py"}'), MAIN]))
    assert "no package.json at its top" in nested.message
    assert "-C FOLDER ." in nested.hint


def test_inspect_keeps_to_smaller_rules() -> None:
    assert "more than 2 members" in refusal(package(file("x")), archive.Rules(members=2)).message
    assert "more than 50 bytes" in refusal(package(file("x")), archive.Rules(content=50)).message


def test_inspect_reads_what_other_tools_write(tmp_path: Path) -> None:
    """GNU tar with long names, in several gzip parts, padded."""
    folder = tmp_path / "source"
    long = folder / ("d" * 90) / ("e" * 90)
    long.mkdir(parents=True)
    (long / "file").write_text("x", encoding="utf-8")
    (folder / "package.json").write_bytes(archives.PACKAGE_JSON)
    (folder / "main.py").write_text("", encoding="utf-8")
    packed = tmp_path / "x.tar"
    for form in ("gnu", "pax", "ustar"):
        subprocess.run(
            ["tar", f"--format={form}", "-cf", str(packed), "-C", str(folder), "."], check=True
        )
        data = packed.read_bytes()
        parts = gzip.compress(data[:700]) + gzip.compress(data[700:])
        answer = inspect_bytes(parts + bytes(1000))
        assert answer["files"] == 3, form


mutations = st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), max_size=6)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mutations, st.booleans())
def test_inspect_of_a_damaged_archive_answers_or_refuses(
    changes: list[tuple[int, int]], inside: bool
) -> None:
    """Bytes changed in the tar before compressing, or in the compressed file."""
    members = (*archives.BASE, file("d/e", b"x" * 600), file("l" * 150))
    data = bytearray(archives.plain(members) if inside else pack(members))
    for position, value in changes:
        data[position % len(data)] = value
    compressed = gzip.compress(bytes(data), 1) if inside else bytes(data)
    try:
        answer = inspect_bytes(compressed)
    except SandboxError as error:
        assert error.code == "BAD_PACKAGE"
    else:
        assert answer["files"] >= 2


def test_gunzip_hashes_what_it_reads() -> None:
    data = package(file("x", b"1" * 10_000))
    with archives.opened(data) as descriptor:
        reader = gunzip.Gunzip(descriptor, limit=1 << 20)
        assert reader.read_exactly(0) == b""
        assert len(reader.read_exactly(600)) == 600
        assert reader.finish(padding=1 << 20) == hashlib.sha256(data).hexdigest()
