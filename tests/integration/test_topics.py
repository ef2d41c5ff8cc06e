"""Topics: from HTTP and Instances, across Hubs, with several readers and writers."""

import json
import threading

import pytest
from tests.support import packages
from tests.support.system import System

from sth_client import Client
from sth_protocol.errors import UnsupportedMediaType


def lines(first: int, count: int, writer: str = "w") -> bytes:
    return b"".join(
        json.dumps({"writer": writer, "n": number}).encode() + b"\n"
        for number in range(first, first + count)
    )


def read_lines(client: Client, topic: str, count: int) -> list[dict[str, object]]:
    """The next `count` records of a plain reader."""
    received = bytearray()
    with client.subscribe(topic) as records:
        for chunk in records:
            received += chunk
            if received.count(b"\n") >= count:
                break
    return [json.loads(line) for line in received.splitlines()[:count]]


def test_what_was_posted_before_anyone_listened_is_delivered(shared_system: System) -> None:
    client = shared_system.client()
    client.publish("early", lines(0, 1000))
    assert [record["n"] for record in read_lines(client, "early", 1000)] == list(range(1000))


def test_instances_on_two_hubs_are_joined_by_a_topic(shared_system: System) -> None:
    client = shared_system.client()
    sequence = client.upload(packages.python(packages.RECORDS))
    reader = client.start(sequence, hub="edge", input_topic="across")
    writer = client.start(sequence, hub="local", output_topic="across")
    client.send_input(writer, lines(0, 5000), content_type=packages.NDJSON)
    received = bytearray()
    with client.output(reader) as output:
        for chunk in output:
            received += chunk
            if received.count(b"\n") >= 5000:
                break
    assert [json.loads(line)["n"] for line in received.splitlines()] == list(range(5000))
    client.kill(reader)


def test_several_writers_keep_their_own_order(shared_system: System) -> None:
    client = shared_system.client()
    names = ["a", "b", "c"]
    threads = [
        threading.Thread(target=client.publish, args=("several", lines(0, 2000, name)))
        for name in names
    ]
    for thread in threads:
        thread.start()
    records = read_lines(client, "several", 6000)
    for thread in threads:
        thread.join()
    for name in names:
        assert [r["n"] for r in records if r["writer"] == name] == list(range(2000))


def test_slow_reader_holds_up_neither_reader_nor_writer(shared_system: System) -> None:
    client = shared_system.client()
    client.create_topic("unequal", content_type=packages.NDJSON)
    with client.subscribe("unequal") as slow:
        big = b"".join(b'{"n": %d, "x": "%s"}\n' % (n, b"x" * 1000) for n in range(20_000))
        reading = threading.Thread(target=client.publish, args=("unequal", big))
        reading.start()
        records = read_lines(client, "unequal", 20_000)
        reading.join()
        assert [record["n"] for record in records] == list(range(20_000))
        assert next(slow).startswith(b'{"n": 0,')


def test_another_content_type_is_refused(shared_system: System) -> None:
    client = shared_system.client()
    client.create_topic("typed", content_type=packages.NDJSON)
    with pytest.raises(UnsupportedMediaType):
        client.publish("typed", b"bytes", content_type=packages.OCTET)


def test_topics_survive_a_broker_that_is_killed(system: System) -> None:
    system.client().publish("durable", lines(0, 500))
    assert system.broker is not None
    system.broker.popen.kill()
    system.broker.end()
    system.start_broker()
    assert [r["n"] for r in read_lines(system.client(), "durable", 500)] == list(range(500))
