"""The clients and the command against a real broker, without a Hub: what needs none."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.system import System
from tests.support.waiting import wait_for

from sth_client import aio
from sth_client.settings import config_path, read_config
from sth_protocol import errors


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system"), local_hub=False) as running:
        yield running


def sth(system: System, *words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """The command with nothing but what `sth-broker up` has written."""
    return subprocess.run(
        [sys.executable, "-m", "sth_client", *words],
        check=False,
        capture_output=True,
        input=given,
        env=system.env,
        timeout=60,
    )


def test_profile_that_the_broker_writes_is_one_of_ours(system: System) -> None:
    # The broker answers before it has written its profile.
    wait_for("the profile is there", config_path(system.env).exists)
    config = read_config(config_path(system.env))
    assert config.current == "local"
    assert config.profiles["local"]["url"] == system.url
    done = sth(system, "version", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == system.url
    assert done.stderr == b""


def test_topic_keeps_records_until_somebody_reads(system: System) -> None:
    assert sth(system, "topic", "create", "kept").returncode == 0
    assert sth(system, "topic", "pub", "-", given=b'{"a":1}\n{"a":2}\n').returncode == 0
    done = sth(system, "topic", "sub", "-", "--idle", "1s")
    assert (done.returncode, done.stdout) == (0, b'{"a":1}\n{"a":2}\n')
    assert b"kept  application/x-ndjson" in sth(system, "topic", "ls").stdout
    assert sth(system, "topic", "rm", "-", "--yes").returncode == 0


def test_package_is_uploaded_listed_and_removed(system: System, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(
        '{"name": "empty", "main": "main.py", "engines": {"python3": "3"}}'
    )
    (tmp_path / "main.py").write_text("def run(context, input): pass\n")
    done = sth(system, "seq", "push", str(tmp_path), "--name", "other")
    assert done.returncode == 0, done.stderr
    client = system.client()
    [sequence] = client.sequences()
    assert (sequence.id, sequence.name) == (done.stdout.decode().strip(), "other")
    assert client.sequence("other").id == sequence.id
    start = sth(system, "seq", "start", "other")
    assert (start.returncode, start.stdout) == (6, b"")
    assert b"no Hub has joined" in start.stderr
    assert sth(system, "seq", "rm", "oth", "--yes").returncode == 0
    assert client.sequences() == []


def test_tokens_are_made_used_and_revoked(system: System) -> None:
    client = system.client()
    made = client.make_api_token(scope="read", name="reader")
    reader = type(client)(system.url, token=made.token)
    assert reader.topics() == []
    with pytest.raises(errors.Forbidden, match="has scope read"):
        reader.create_topic("not")
    assert sth(system, "token", "revoke", "reader", "--yes").returncode == 0
    with pytest.raises(errors.Unauthorized, match="was revoked"):
        reader.topics()
    line = sth(system, "token", "create", "join", "--ttl", "5m").stdout.decode()
    assert line.split()[-3:-1] == ["sth-agent", "join"]
    assert line.split()[-1].startswith("sthj1_")


def test_broken_upload_leaves_nothing(system: System) -> None:
    client = system.client()
    with pytest.raises(errors.BadPackage):
        client.upload(b"\x1f\x8b not a gzip")
    assert client.sequences() == []


async def test_asynchronous_client_does_the_same(system: System) -> None:
    async with aio.Client(system.url, token=system.token) as client:
        assert (await client.version()).api_version == "v1"
        assert (await client.load_check()).memory_free > 0
        await client.publish("async", b"{}\n")
        async with await client.subscribe("async", idle=1) as stream:
            assert [data async for data in stream] == [b"{}\n"]
        with pytest.raises(errors.NotFound):
            await client.instance("none")
        with pytest.raises(errors.NotFound):
            await client.hub("none")
        await client.delete_topic("async")
