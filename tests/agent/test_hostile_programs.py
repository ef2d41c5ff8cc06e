"""Programs that write what they like to the sockets of their runner, in their real sandbox.

Each harms its own streams at most: it is reported, ended and forgotten like any other, and so is
its neighbour.
"""

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Callable

import pytest
from tests.support import packages
from tests.support.agent_instances import AgentInstances, Broker, running_spawner
from tests.support.waiting import until

from sth_agent.instance import Instance
from sth_agent.instances import DESCRIPTORS_OF_AGENT, DESCRIPTORS_OF_ONE
from sth_protocol.errors import InsufficientResources

Make = Callable[[], AgentInstances]

_BEGIN = """
import asyncio, json, os, struct
from sth_sandbox.runners import frames

def say(**message):
    os.write(5, frames.pack_frame(frames.MESSAGE, json.dumps(message).encode()))

def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value

def declare(text):
    os.write(4, frames.pack_frame(frames.TYPE, text.encode()))

def data(**fields):
    os.write(4, frames.pack_frame(frames.DATA, b"x\\n", **fields))

async def run(context, input):
    os.set_blocking(5, True)
    __ATTACK__
    print("done", flush=True)
    await asyncio.sleep(1000)
"""

ATTACKS = {
    "long words": "say(type='ready', requires={'requires': 'x' * 100_000}, provides={})",
    "half a character": "say(type='ready', requires={'requires': '\\ud800'}, provides={})",
    "deep words": "say(type='ready', requires=deep(60), provides=deep(900))",
    "many words": "say(type='ready', requires={str(n): 'v' for n in range(20_000)}, provides={})",
    "other kinds": "say(type='ready', requires={'a': 10**30, 'b': [float('nan')]}, provides=7)",
    "an error of its own": "say(type='error', exit_code=10**40, message=['x'], traceback=[1])",
    "a position of its own": "say(type='resynced', offset=10**30, sequence=-1, content_type=[])",
    "control that is none": "os.write(5, b'garbage' * 100)",
    "a deep message": "os.write(5, frames.pack_frame(frames.MESSAGE, b'[' * 100_000))",
    "a type with half a character": """declare('{"content_type": "\\\\ud800", "provides": {}}')""",
    "a long type": "declare(json.dumps({'content_type': 'x' * 100_000, 'provides': deep(60)}))",
    "a deep type": "declare('[' * 100_000)",
    "output that is none": "os.write(4, b'garbage' * 100)",
    "output beyond all bounds": "data(offset=2**64 - 1, number=2**64 - 1, count=2**32 - 1)",
    "output that goes backwards": "[data(offset=offset) for offset in (100, 0, 50)]",
    "log that is none": "os.write(6, b'garbage' * 100)",
    "input that is written": "os.write(3, b'garbage' * 100)",
    "no sockets": "[os.close(number) for number in (3, 4, 6)]",
}


@pytest.fixture
async def agents() -> AsyncIterator[Make]:
    async with running_spawner() as make:
        yield make


@pytest.mark.parametrize("attack", list(ATTACKS.values()), ids=list(ATTACKS))
async def test_hostile_program_harms_only_itself(
    agents: Make, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = agents()
    broker = Broker(machine)
    neighbour = await broker.start(packages.python(packages.LINES))
    hostile = await broker.start(packages.python(_BEGIN.replace("__ATTACK__", attack)))
    done = broker.stream(hostile.instance, "stdout")
    await until("the attack is over", lambda: b"done" in done.data)
    broker.stream(hostile.instance, "output")
    broker.stream(hostile.instance, "log")
    for each in (hostile.instance, neighbour.instance):
        answer = await broker.ask("instance.health", instance=each)
        assert answer["process_id"] > 0
    feed = broker.stream(neighbour.instance, "input", content_type="text/plain", end=True)
    feed.send(b"still here\n")
    feed.finish()
    assert await broker.read(neighbour.instance, "output") == b"still here\n"
    answer = await broker.ask("instance.kill", instance=hostile.instance)
    assert answer["report"]["ended_ms"] > 0
    # A new session begins with a list of all, in which neither is missing.
    again = Broker(machine)
    await until("the list has come", lambda: again.told)
    listed = {each["instance"] for each in again.told[0]["instances"]}
    assert listed == {hostile.instance, neighbour.instance}
    assert not [each for each in caplog.records if each.exc_info]


async def test_program_that_tells_without_end_is_heard_twice(agents: Make) -> None:
    broker = Broker(agents())
    flood = "[say(type='ready', requires={'a': str(n)}, provides={}) for n in range(3000)]"
    report = await broker.start(packages.python(_BEGIN.replace("__ATTACK__", flood)))
    done = broker.stream(report.instance, "stdout")
    await until("the flood is over", lambda: b"done" in done.data)
    await broker.ask("instance.kill", instance=report.instance)
    # Starting it, its own words, and the end.
    assert len([each for each in broker.told if each.get("type") == "instance.state"]) <= 6


@pytest.mark.parametrize("attack", ["os.write(5, b'garbage' * 100)", "os.close(5)"])
async def test_program_that_breaks_its_control_while_loading_does_not_hold_its_start(
    agents: Make, attack: str
) -> None:
    broker = Broker(agents())
    source = f"import os, time\n{attack}\nwhile True:\n    time.sleep(1000)\n"
    report = await broker.start(packages.python(source))
    assert (report.state, report.exit_code) == ("errored", 137)


async def test_nothing_of_a_forgotten_program_stays_in_memory(agents: Make) -> None:
    broker = Broker(agents())
    report = await broker.start(packages.python("def run(context, input):\n    print('x' * 9)\n"))
    await broker.until_ended(report.instance)
    await broker.ask("instance.forget", instance=report.instance)
    # A callback or two may still be on its way.
    await asyncio.sleep(0)
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, Instance)]
    assert report.instance not in [each.spec.instance for each in left]


async def test_more_programs_than_open_files_allow_are_refused(agents: Make) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = DESCRIPTORS_OF_AGENT + 2 * DESCRIPTORS_OF_ONE
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        broker = Broker(agents())
        reports = [await broker.start(packages.python(packages.LINES)) for _ in range(2)]
        with pytest.raises(InsufficientResources):
            await broker.start(packages.python(packages.LINES))
        await broker.ask("instance.kill", instance=reports[0].instance)
        await broker.ask("instance.forget", instance=reports[0].instance)
        assert (await broker.start(packages.python(packages.LINES))).state == "running"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
