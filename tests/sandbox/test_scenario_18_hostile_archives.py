"""Scenario 18: hostile archives are refused, write nothing outside, and hold nobody up."""

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator

import pytest
from tests.sandbox import archives
from tests.sandbox.archives import file, folder, hardlink, package, special, symlink
from tests.sandbox.spawned import Agent, Refused, Spawner

OUTSIDE = "/tmp/sth-scenario-18"
GIGABYTE = 1 << 30


def pax(name: str, **headers: str) -> archives.Member:
    info, data = file(name)
    info.pax_headers = {key.replace("__", "."): value for key, value in headers.items()}
    return info, data


def negative_size() -> bytes:
    def change(header: bytearray) -> None:
        header[124:136] = b"\xff" * 12

    return gzip.compress(archives.changed(archives.plain([file("x")]), change))


def old_sparse() -> bytes:
    def change(header: bytearray) -> None:
        header[156:157] = tarfile.GNUTYPE_SPARSE

    data = archives.plain([file("x")], format=tarfile.GNU_FORMAT)
    return gzip.compress(archives.changed(data, change))


HOSTILE = {
    "symbolic link out": package(symlink("out", "/etc")),
    "symbolic link inside": package(symlink("again", "main.py")),
    "file behind a link": package(symlink("d", "/tmp"), file("d/sth-scenario-18")),
    "chain of links": package(
        symlink("a", "."), symlink("a/b", ".."), symlink("a/b/c", ".."), file("a/b/c/tmp/x")
    ),
    "link replaced by a folder": package(symlink("d", "/tmp"), folder("d"), file("d/x")),
    "hard link out": package(hardlink("passwd", "/etc/passwd")),
    "hard link inside": package(hardlink("again", "main.py")),
    "absolute name": package(file(OUTSIDE)),
    "two dots": package(file("../../../../../../tmp/sth-scenario-18")),
    "two dots inside": package(file("a/../b")),
    "two dots by an extended header": package(pax("x", path="../../tmp/sth-scenario-18")),
    "absolute by an extended header": package(pax("x", path=OUTSIDE)),
    "character device": package(special("null", tarfile.CHRTYPE)),
    "block device": package(special("disk", tarfile.BLKTYPE)),
    "fifo": package(special("fifo", tarfile.FIFOTYPE)),
    "unknown type": package(special("x", b"Z")),
    "setuid": package(file("su", mode=0o4755)),
    "setgid": package(file("sg", mode=0o2755)),
    "same name twice": package(file("twice"), file("twice", b"other")),
    "same name by another spelling": package(file("a/b"), file("./a//b")),
    "folder twice": package(folder("d"), folder("d")),
    "names differing by case": package(file("Read.me"), file("READ.ME")),
    "folders differing by case": package(file("Folder/a"), file("folder/b")),
    "names differing by composition": package(file("caf\u00e9"), file("cafe\u0301")),
    "file and folder": package(file("a"), file("a/b")),
    "folder and file": package(file("a/b"), file("a")),
    "not a name": package(file("a\nb")),
    "name too long": package(file("x" * 300)),
    "path too long": package(file("/".join(["abcdefgh"] * 200))),
    "too deep": package(file("/".join("d" * 100))),
    "too many members": package(*(file(f"m/{number}", b"") for number in range(20_001))),
    "more than the cap": archives.gzip_of_zeros(GIGABYTE),
    "zeros without an end": archives.lying_gzip_of_zeros(GIGABYTE),
    "zeros within a member": package(file("x", bytes(1 << 20)))[:-1000],
    "sparse": old_sparse(),
    "sparse by an extended header": package(pax("x", GNU__sparse__major="1")),
    "size by an extended header": package(pax("x", size="99999999999999")),
    "negative size": negative_size(),
    "not gzip": b"PK\3\4" + bytes(1000),
    "nothing": b"",
    "not tar": gzip.compress(b"text" * 1000),
    "cut off": package(file("x", os.urandom(100_000)))[:-5000],
    "damaged": package()[:-8] + bytes(8),
    "rubbish behind": package() + b"rubbish",
}


@pytest.fixture(autouse=True)
def nothing_outside() -> Iterator[None]:
    assert not os.path.exists(OUTSIDE)
    yield
    assert not os.path.exists(OUTSIDE)


@pytest.mark.parametrize("name", HOSTILE)
def test_scenario_18_hostile_archive_is_refused(
    shared_spawner: Spawner, agent: Agent, name: str
) -> None:
    with pytest.raises(Refused) as refused:
        agent.unpack(HOSTILE[name])
    assert refused.value.code == "BAD_PACKAGE"
    assert refused.value.message
    if os.access(shared_spawner.directory / "cache", os.R_OK):
        assert os.listdir(shared_spawner.directory / "cache") == []


def test_scenario_18_another_hash_is_refused(agent: Agent) -> None:
    with pytest.raises(Refused) as refused:
        agent.unpack(package(), sha256="0" * 64)
    assert refused.value.code == "CORRUPT"
    assert agent.ask("have", sha256="0" * 64)["present"] is False


def test_scenario_18_what_is_no_file_is_refused(agent: Agent) -> None:
    reader, writer = os.pipe()
    try:
        for descriptor in (reader, writer):
            with pytest.raises(Refused) as refused:
                agent.ask("unpack", [descriptor], sha256="0" * 64)
            assert refused.value.code == "BAD_REQUEST"
    finally:
        os.close(reader)
        os.close(writer)
    path_only = os.open("/etc/hostname", os.O_PATH)
    try:
        with pytest.raises(Refused) as refused:
            agent.ask("unpack", [path_only], sha256="0" * 64)
    finally:
        os.close(path_only)


def test_scenario_18_the_spawner_serves_while_it_unpacks(agent: Agent) -> None:
    """The answer to a later request overtakes that to an unpacking, of whatever size."""
    with archives.opened(HOSTILE["too many members"]) as descriptor:
        slow = agent.send("unpack", [descriptor], sha256="1" * 64)
        agent.ask("list")
        assert slow not in agent.answered()
    with pytest.raises(Refused) as refused:
        agent.answer(slow)
    assert refused.value.code == "BAD_PACKAGE"


def test_scenario_18_good_package_is_unpacked_as_it_is(
    shared_spawner: Spawner, agent: Agent
) -> None:
    """The control: what is refused above is refused for its own fault."""
    long_name = "folder/" + "/".join(["n" * 100] * 5)
    data = package(
        folder("."),
        folder("./lib/"),
        file("./lib/tool", b"#!/bin/sh\n", mode=0o755),
        file("lib/data", bytes(1_000_000)),
        file("empty", b""),
        file(long_name, b"deep"),
        file("gr\u00fc\u00dfe", b"umlauts"),
        symlink("node_modules/.bin/tool", "../tool/cli.js"),
        file("node_modules/tool/cli.js"),
    )
    sha256 = agent.unpack(data)
    assert agent.ask("have", sha256=sha256)["present"] is True
    files = (
        "main.py",
        "package.json",
        "lib/tool",
        "lib/data",
        "empty",
        long_name,
        "gr\u00fc\u00dfe",
    )
    tree = shared_spawner.directory / "cache" / sha256 / "tree"
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == {*files, "node_modules/tool/cli.js"}
    assert (tree / long_name).read_bytes() == b"deep"
    assert stat.S_IMODE((tree / "lib/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "lib/data").stat().st_mode) == 0o644
    assert not (tree / "node_modules/.bin").exists()


def test_scenario_18_unpacking_twice_and_at_once(shared_spawner: Spawner) -> None:
    agents = [shared_spawner.agent() for _ in range(4)]
    data = package(file("filler", os.urandom(500_000)))
    with archives.opened(data) as descriptor:
        sha256 = hashlib.sha256(data).hexdigest()
        numbers = [each.send("unpack", [descriptor], sha256=sha256) for each in agents]
        answers = [each.answer(n)[0] for each, n in zip(agents, numbers, strict=True)]
        answers.append(agents[0].ask("unpack", [descriptor], sha256=sha256))
    assert {(each["files"], each["bytes"]) for each in answers} == {
        (3, 500_000 + sum(len(data) for _, data in archives.BASE))
    }


def test_scenario_18_left_overs_of_a_dead_spawner_are_removed() -> None:
    spawner = Spawner()
    try:
        left = spawner.directory / "cache" / "unpacking-left" / "tree"
        left.mkdir(parents=True)
        (left / "file").write_text("x", encoding="utf-8")
        agent = spawner.agent()
        agent.send("shutdown", grace_ms=0)
        spawner.process.wait(30)
        spawner.restart()
        assert spawner.agent().ask("list")["instances"] == []
        assert os.listdir(spawner.directory / "cache") == []
    finally:
        spawner.close()
