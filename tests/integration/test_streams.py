"""Bytes through the whole path: HTTP in, broker, link, sandbox, and back out."""

import hashlib
import os
import threading
from collections.abc import Iterator

import pytest
from tests.support import packages
from tests.support.system import System
from tests.support.waiting import wait_for

from sth_client import Client
from sth_protocol.errors import NotFound, SthError

MEBIBYTE = 1024 * 1024


def echo(client: Client, instance: str, blocks: list[bytes], content_type: str) -> bytes:
    """What comes back of `blocks`, to the end of the output."""
    failures: list[Exception] = []

    def feed() -> None:
        try:
            client.send_input(instance, iter(blocks), content_type=content_type)
        except Exception as error:
            failures.append(error)

    sender = threading.Thread(target=feed)
    with client.output(instance) as output:
        sender.start()
        received = b"".join(output)
    sender.join()
    assert not failures, failures
    return received


@pytest.mark.parametrize("hub", ["local", "edge"])
def test_python_pass_through_returns_every_byte(shared_system: System, hub: str) -> None:
    client = shared_system.client()
    instance = client.start(client.upload(packages.python(packages.PASS_THROUGH)), hub=hub)
    blocks = [os.urandom(MEBIBYTE) for _ in range(8)]
    received = echo(client, instance, blocks, packages.OCTET)
    assert hashlib.sha256(received).digest() == hashlib.sha256(b"".join(blocks)).digest()


NODE_PASS = """
module.exports = [
    { requires: "", contentType: "application/octet-stream" },
    function (stream) { return stream; },
];
"""


@pytest.mark.usefixtures("needs_node")
def test_node_pass_through_returns_every_byte(shared_system: System) -> None:
    client = shared_system.client()
    instance = client.start(client.upload(packages.node(NODE_PASS)), hub="edge")
    blocks = [os.urandom(MEBIBYTE) for _ in range(8)]
    received = echo(client, instance, blocks, packages.OCTET)
    assert hashlib.sha256(received).digest() == hashlib.sha256(b"".join(blocks)).digest()


def test_lines_keep_their_order_and_their_newlines(shared_system: System) -> None:
    client = shared_system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    text = "".join(f"line {number} \u00e4\u2028\n" for number in range(50_000)) + "no newline"
    data = text.encode()
    blocks = [data[start : start + 7001] for start in range(0, len(data), 7001)]
    assert echo(client, instance, blocks, packages.TEXT).decode() == text


def test_output_without_a_reader_waits_for_one(shared_system: System) -> None:
    client = shared_system.client()
    source = "def run(context, input):\n    for n in range(200_000):\n        yield f'{n}\\n'\n"
    instance = client.start(client.upload(packages.python(source)))
    with client.output(instance) as output:
        received = b"".join(output)
    assert received == b"".join(b"%d\n" % number for number in range(200_000))


def test_reader_that_leaves_hands_the_rest_to_the_next_one(shared_system: System) -> None:
    client = shared_system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    client.send_input(instance, b"first\n", end=False)
    with client.output(instance) as output:
        assert next(output) == b"first\n"
    client.send_input(instance, b"second\n")
    with client.output(instance) as output:
        assert b"".join(output) == b"second\n"


def test_stdout_stderr_and_log_are_readable_after_the_end(shared_system: System) -> None:
    client = shared_system.client()
    source = """
import sys

async def run(context, input):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    context.logger.info("to the log")
    yield "done\\n"
"""
    instance = client.start(client.upload(packages.python(source)))
    with client.output(instance) as output:
        assert b"".join(output) == b"done\n"
    with client.stdout(instance) as stdout:
        assert b"".join(stdout) == b"to stdout\n"
    with client.stderr(instance) as stderr:
        assert b"".join(stderr) == b"to stderr\n"
    with client.log(instance) as log:
        assert b"to the log" in b"".join(log)
    wait_for("the end is known", lambda: client.instance(instance).status == "completed")


def test_stdin_reaches_the_program(shared_system: System) -> None:
    client = shared_system.client()
    source = """
import sys

def run(context, input):
    return "".join(line.upper() for line in sys.stdin)
"""
    instance = client.start(client.upload(packages.python(source)))
    client.send_stdin(instance, b"one\ntwo\n")
    with client.output(instance) as output:
        assert b"".join(output) == b"ONE\nTWO\n"


def test_program_that_fails_tells_where(shared_system: System) -> None:
    client = shared_system.client()
    source = "async def run(context, input):\n    yield 'a'\n    raise ValueError('on purpose')\n"
    instance = client.start(client.upload(packages.python(source)))
    with client.stderr(instance) as stderr:
        text = b"".join(stderr).decode()
    assert "ValueError: on purpose" in text
    wait_for("the end is known", lambda: client.instance(instance).status == "errored")
    ended = client.instance(instance)
    assert ended.exit_code == 23
    assert "main.py" in str(ended.raw["error"])


def test_stop_and_kill_end_a_program(shared_system: System) -> None:
    client = shared_system.client()
    sequence = client.upload(packages.python(packages.LINES))
    stopped, killed = client.start(sequence), client.start(sequence)
    assert client.stop(stopped, timeout=5).exit_code == 138
    assert client.kill(killed).exit_code == 137


def test_quiet_sender_is_told_that_the_program_has_ended(shared_system: System) -> None:
    client = shared_system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    killed = threading.Event()

    def first_and_then_nothing() -> Iterator[bytes]:
        yield b"first\n"
        client.kill(instance)
        killed.set()
        stopped.wait(30)

    stopped = threading.Event()
    failures: list[SthError] = []

    def send() -> None:
        try:
            client.send_input(instance, first_and_then_nothing())
        except SthError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert killed.wait(20)
        broker = shared_system.broker
        assert broker is not None
        wait_for("the broker breaks the body off", lambda: "/input broke off" in broker.text())
    finally:
        stopped.set()
        sender.join()
    assert failures


def test_unknown_instance_is_not_found(shared_system: System) -> None:
    with pytest.raises(NotFound):
        shared_system.client().instance("00000000-0000-4000-8000-000000000000")
