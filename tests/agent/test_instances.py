"""Instances in their real sandbox, ordered about by a scripted broker."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from tests.support import packages
from tests.support.agent_instances import AgentInstances, Broker, lines, running_spawner
from tests.support.waiting import until

from sth_protocol.errors import BadFrame, BadName, Conflict, Corrupt, NotFound, SthError
from sth_protocol.lifecycle import MAX_STOP_MS

ECHO = packages.python(packages.LINES)
DEAF = packages.python("""
import asyncio

async def run(context, input):
    async def stopping(timeout, keep_alive=False):
        await asyncio.sleep(1000)
    context.set_stop_handler(stopping)
    print("ready", flush=True)
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
""")

Make = Callable[[], AgentInstances]


@pytest.fixture
async def agents() -> AsyncIterator[Make]:
    async with running_spawner() as make:
        yield make


async def test_program_is_fed_and_read(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(ECHO)
    assert report.state == "running"
    assert report.process_id > 0
    feed = broker.stream(report.instance, "input", content_type="text/plain", end=True)
    feed.send(b"hello\nworld\n")
    feed.finish()
    assert await broker.read(report.instance, "output") == b"hello\nworld\n"
    ended = await broker.until_ended(report.instance)
    assert (ended.state, ended.exit_code, ended.reason) == ("completed", 0, "Instance completed")
    assert ended.sandbox["sandboxed"] is True


async def test_package_is_fetched_once(agents: Make) -> None:
    broker = Broker(agents())
    reports = await asyncio.gather(*(broker.start(ECHO) for _ in range(3)))
    assert {each.state for each in reports} == {"running"}
    await broker.start(ECHO)
    assert len(broker.served) == 1


async def test_package_with_another_hash_is_refused(agents: Make) -> None:
    broker = Broker(agents())
    digest = broker.upload(ECHO)
    broker.packages[digest] = ECHO[:-1]
    with pytest.raises(Corrupt):
        await broker.start(ECHO, sha256=digest)
    with pytest.raises(NotFound):
        await broker.start(ECHO, sha256="0" * 64)
    broker.packages[digest] = ECHO
    assert (await broker.start(ECHO, sha256=digest)).state == "running"


async def test_program_that_cannot_be_loaded_says_why(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(packages.python("raise ValueError('not today')"))
    assert (report.state, report.exit_code) == ("errored", 22)
    assert "not today" in report.error["message"]
    assert report.error["traceback"]["type"] == "ValueError"
    assert b"not today" in await broker.read(report.instance, "stderr")


async def test_program_without_its_main_is_refused(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(ECHO, main="missing.py")
    assert (report.state, report.exit_code) == ("errored", 21)


@pytest.mark.parametrize("timeout_ms", [5000, MAX_STOP_MS])
async def test_stop_ends_a_program_that_listens(agents: Make, timeout_ms: int) -> None:
    broker = Broker(agents())
    report = await broker.start(ECHO)
    answer = await broker.ask(
        "instance.stop", instance=report.instance, timeout_ms=timeout_ms, can_keepalive=False
    )
    assert (answer["report"]["state"], answer["report"]["exit_code"]) == ("completed", 138)
    assert answer["report"]["reason"] == "Instance stopped"


@pytest.mark.parametrize("order", ["instance.stop", "instance.kill"])
async def test_program_that_does_not_listen_is_killed(agents: Make, order: str) -> None:
    broker = Broker(agents())
    report = await broker.start(DEAF)
    ready = broker.stream(report.instance, "stdout")
    await until("it is deaf by now", lambda: b"ready" in ready.data)
    answer = await broker.ask(order, instance=report.instance, timeout_ms=50, can_keepalive=False)
    assert (answer["report"]["state"], answer["report"]["exit_code"]) == ("completed", 137)
    assert answer["report"]["reason"] == "Instance killed"


async def test_program_that_asks_for_more_time_goes_on(agents: Make) -> None:
    broker = Broker(agents())
    source = """
import asyncio

async def run(context, input):
    async def stopping(timeout, keep_alive=False):
        await context.keep_alive(0)
    context.set_stop_handler(stopping)
    print("ready", flush=True)
    await asyncio.sleep(1000)
"""
    report = await broker.start(packages.python(source))
    ready = broker.stream(report.instance, "stdout")
    await until("it is ready", lambda: b"ready" in ready.data)
    answer = await broker.ask(
        "instance.stop", instance=report.instance, timeout_ms=300, can_keepalive=True
    )
    assert answer["report"]["state"] == "stopping"
    health = await broker.ask("instance.health", instance=report.instance)
    assert health == {"healthy": True, "process_id": report.process_id}
    await broker.ask("instance.kill", instance=report.instance)


async def test_program_that_crashes_is_reported_with_its_signal(agents: Make) -> None:
    broker = Broker(agents())
    source = "async def run(context, input):\n    import ctypes\n    ctypes.string_at(0)\n"
    report = await broker.start(packages.python(source))
    ended = await broker.until_ended(report.instance)
    assert (ended.state, ended.exit_code) == ("errored", 139)
    assert "SIGSEGV" in ended.reason


async def test_program_that_is_killed_from_outside_is_reported(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(ECHO)
    os.kill(report.process_id, signal.SIGKILL)
    ended = await broker.until_ended(report.instance)
    assert (ended.state, ended.exit_code) == ("errored", 137)


async def test_last_words_are_there_when_the_end_is_told(agents: Make) -> None:
    broker = Broker(agents())
    source = """
import sys

def run(context, input):
    print("x" * 100_000)
    print("last words", file=sys.stderr)
    context.logger.error("last line")
    raise RuntimeError("enough")
"""
    report = await broker.start(packages.python(source))
    ended = await broker.until_ended(report.instance)
    assert ended.exit_code == 23
    assert "enough" in ended.reason
    assert len(await broker.read(report.instance, "stdout")) == 100_001
    assert b"last words" in await broker.read(report.instance, "stderr")
    logged = lines(await broker.read(report.instance, "log"))
    assert "last line" in [each["msg"] for each in logged]


async def test_forgotten_instance_leaves_nothing(agents: Make) -> None:
    agent = agents()
    broker = Broker(agent)
    report = await broker.start(ECHO)
    with pytest.raises(Conflict):
        await broker.ask("instance.forget", instance=report.instance)
    await broker.ask("instance.kill", instance=report.instance)
    await broker.ask("instance.forget", instance=report.instance)
    assert await agent.spawner.list_instances() == []
    assert list(agent.state.instances.iterdir()) == []
    stream = broker.stream(report.instance, "output")
    await until("it is not there", lambda: stream.reset)
    assert stream.reset is not None
    assert stream.reset.code == "NOT_FOUND"
    await broker.ask("instance.forget", instance=report.instance)


async def test_successor_takes_over_what_runs_and_what_has_ended(agents: Make) -> None:
    first = agents()
    broker = Broker(first)
    running = await broker.start(ECHO)
    feed = broker.stream(running.instance, "input", content_type="text/plain", end=False)
    feed.send(b"before\n")
    read = broker.stream(running.instance, "output")
    await until("it has come back", lambda: read.data == b"before\n")
    broker.report()
    ended = await broker.start(packages.python("def run(context, input):\n    return 'bye'"))
    await broker.until_ended(ended.instance)
    second = agents()
    await second.instances.adopt()
    states = {each.instance: each.state for each in second.instances.reports()}
    assert states == {running.instance: "running", ended.instance: "completed"}
    again = Broker(second)
    assert await again.read(ended.instance, "output") == b"bye"
    feed = again.stream(running.instance, "input", content_type="text/plain", end=True)
    feed.send(b"after\n")
    feed.finish()
    assert await again.read(running.instance, "output") == b"after\n"
    assert (await again.until_ended(running.instance)).exit_code == 0


async def test_successor_sees_the_end_that_nobody_saw(agents: Make) -> None:
    first = agents()
    report = await Broker(first).start(ECHO)
    first.close()
    os.kill(report.process_id, signal.SIGKILL)
    second = agents()
    await second.instances.adopt()
    broker = Broker(second)
    ended = await broker.until_ended(report.instance)
    assert (ended.state, ended.exit_code) == ("errored", 137)


async def test_end_that_is_told_to_a_successor_before_it_takes_over_is_kept(agents: Make) -> None:
    report = await Broker(agents()).start(ECHO)
    second = agents()
    os.kill(report.process_id, signal.SIGKILL)
    async with asyncio.timeout(30):
        # Whoever hears this answer has heard of the end before.
        while any(each.running for each in await second.spawner.list_instances()):
            pass
    await second.instances.adopt()
    broker = Broker(second)
    ended = await broker.until_ended(report.instance)
    assert (ended.state, ended.exit_code) == ("errored", 137)


async def test_instance_of_which_nothing_is_known_is_ended(agents: Make) -> None:
    first = agents()
    report = await Broker(first).start(ECHO)
    for each in first.state.instances.iterdir():
        each.unlink()
    second = agents()
    await second.instances.adopt()
    assert second.instances.reports() == []
    await until("it is gone", lambda: not os.path.exists(f"/proc/{report.process_id}"))


async def test_session_begins_with_the_list_of_instances(agents: Make) -> None:
    agent = agents()
    broker = Broker(agent)
    started = [(await broker.start(ECHO)).instance for _ in range(2)]
    again = Broker(agent)
    await until("it has told", lambda: again.told)
    first = again.told[0]
    assert (first["type"], first["page"], first["pages"]) == ("hub.sync", 0, 1)
    assert sorted(each["instance"] for each in first["instances"]) == sorted(started)


async def test_instances_end_with_their_spawner(agents: Make) -> None:
    agent = agents()
    broker = Broker(agent)
    report = await broker.start(ECHO)
    os.kill((await agent.spawner.hello()).pid, signal.SIGKILL)
    await agent.spawner_has_gone.wait()
    ended = await broker.until_ended(report.instance)
    assert ended.state == "errored"
    assert "the spawner has ended" in ended.reason


async def test_second_reader_of_an_output_is_refused_until_the_first_leaves(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(ECHO)
    first = broker.stream(report.instance, "output")
    await until("the first reads", lambda: first.is_accepted)
    second = broker.stream(report.instance, "output")
    await until("the second is refused", lambda: second.reset)
    assert second.reset is not None
    assert second.reset.code == "CONFLICT"
    first.break_off()
    third = broker.stream(report.instance, "output")
    await until("the third reads", lambda: third.is_accepted)


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        ("instance.start", {"spec": None}, BadFrame),
        ("instance.start", {"spec": {"instance": "x"}}, BadFrame),
        ("instance.stop", {"instance": "x", "timeout_ms": 1}, NotFound),
        ("instance.kill", {}, NotFound),
        ("instance.health", {"instance": 3}, NotFound),
    ],
)
async def test_bad_request_is_answered(
    agents: Make, kind: str, fields: dict[str, object], error: type[SthError]
) -> None:
    with pytest.raises(error):
        await Broker(agents()).ask(kind, **fields)


async def test_instance_id_and_hash_are_checked(agents: Make) -> None:
    broker = Broker(agents())
    with pytest.raises(BadName):
        await broker.start(ECHO, instance="../../etc/passwd")
    with pytest.raises(BadName):
        await broker.start(ECHO, sha256="../x")
    name = str(uuid.uuid4())
    await broker.start(ECHO, instance=name)
    with pytest.raises(Conflict):
        await broker.start(ECHO, instance=name)
