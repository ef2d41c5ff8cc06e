"""Links that are cut in the middle of everything: no byte is lost, none comes twice."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import packages
from tests.support.system import System
from tests.support.unreliable_line import UnreliableLine, unreliable_line

from sth_client import Client

CUTS = 8
FEWEST_CUTS = 4

Setting = tuple[System, UnreliableLine]


@pytest.fixture(params=[1, 2, 3])
def cut_system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Setting]:
    """A Hub `edge` that reaches its broker over a line that breaks."""
    with unreliable_line(seed=request.param, cuts=CUTS, most_bytes=2_000_000) as line:
        advertise = (f"127.0.0.1:{line.port}",)
        with System(tmp_path / "system", local_hub=False, advertise=advertise) as system:
            line.target = int(system.facts["agents"].rpartition(":")[2])
            agent = system.add_agent("edge")
            done = agent.join(system.client().make_join_token().token, "--name", "edge")
            assert done.returncode == 0, done.stderr
            agent.run()
            system.wait_for_hub("edge")
            line.release()
            yield system, line


def feed(client: Client, instance: str, blocks: list[bytes], failures: list[Exception]) -> None:
    try:
        client.send_input(instance, iter(blocks), content_type=packages.OCTET)
    except Exception as error:
        failures.append(error)


def test_streams_go_on_over_links_that_break(cut_system: Setting) -> None:
    system, line = cut_system
    client = system.client()
    chance = random.Random(7)
    blocks = [chance.randbytes(chance.randint(1, 200_000)) for _ in range(100)]
    instance = client.start(client.upload(packages.python(packages.PASS_THROUGH)))
    failures: list[Exception] = []
    sender = threading.Thread(target=feed, args=(client, instance, blocks, failures))
    with client.output(instance) as output:
        sender.start()
        received = b"".join(output)
    sender.join()
    assert not failures, failures
    assert line.seen >= FEWEST_CUTS
    assert hashlib.sha256(received).digest() == hashlib.sha256(b"".join(blocks)).digest()


def test_topics_go_on_over_links_that_break(cut_system: Setting) -> None:
    system, line = cut_system
    client = system.client()
    source = """
provides = {"provides": "records", "contentType": "application/x-ndjson"}

async def run(context, input):
    for number in range(20_000):
        yield {"n": number, "x": "x" * 500}
"""
    client.create_topic("records", content_type=packages.NDJSON)
    client.start(client.upload(packages.python(source)))
    received = bytearray()
    with client.subscribe("records") as records:
        for chunk in records:
            received += chunk
            if received.count(b"\n") >= 20_000:
                break
    assert line.seen >= FEWEST_CUTS
    assert [json.loads(each)["n"] for each in received.splitlines()] == list(range(20_000))
