"""Processes that are killed in the middle of their work."""

import json

import pytest
from tests.support import packages
from tests.support.system import Agent, System
from tests.support.waiting import wait_for

RECORDS = 40_000

NUMBERS = f"""
import asyncio

provides = {{"provides": "numbers", "contentType": "application/x-ndjson"}}

async def run(context, input):
    for number in range({RECORDS}):
        yield {{"n": number, "x": "x" * 100}}
        if number % 400 == 0:
            await asyncio.sleep(0.005)
"""


def kill_agent(system: System, agent: Agent) -> None:
    agent.kill()
    agent.run()
    system.wait_for_hub("edge")


def kill_broker(system: System) -> None:
    assert system.broker is not None
    system.broker.popen.kill()
    system.broker.end()
    system.start_broker()
    system.wait_for_hub("edge")


def stored(system: System) -> int:
    """How many bytes of Topics there are on disk."""
    return sum(each.stat().st_size for each in (system.data / "store" / "topics").rglob("*.log"))


@pytest.mark.parametrize("victim", ["agent", "broker", "both"])
def test_topic_holds_every_record_once_whoever_is_killed(system: System, victim: str) -> None:
    agent = system.join_agent("edge")
    client = system.client()
    client.create_topic("numbers", content_type=packages.NDJSON)
    instance = client.start(client.upload(packages.python(NUMBERS)))
    for _ in range(3):
        before = stored(system)
        wait_for("more is stored", lambda before=before: stored(system) > before)  # type: ignore[misc]
        if victim != "broker":
            kill_agent(system, agent)
        if victim != "agent":
            kill_broker(system)
    client = system.client()
    wait_for("the program is done", lambda: client.instance(instance).status == "completed")
    received = bytearray()
    with client.subscribe("numbers") as records:
        for chunk in records:
            received += chunk
            if received.count(b"\n") >= RECORDS:
                break
    assert [json.loads(each)["n"] for each in received.splitlines()] == list(range(RECORDS))
