"""A machine that has joined and then does what it likes: others notice nothing of it."""

import asyncio
from typing import Any

import pytest
from tests.support import packages
from tests.support.api import Api
from tests.support.batches import lines
from tests.support.broker_core import Machine
from tests.support.scripted_agent import ScriptedAgent, connected, report

from sth_protocol.model import to_map

LISTS = ("instances", "hubs", "sequences", "topics", "status")
OTHER = "00000000-0000-4000-8000-000000000009"
NDJSON = "application/x-ndjson"


async def assert_unharmed(api: Api, neighbour: ScriptedAgent) -> None:
    """Everything can be listed, and another Hub does its work."""
    for path in LISTS:
        await api.call("GET", path)
    for each in await api.call("GET", "instances"):
        await api.call("GET", f"instance/{each['id']}")
    instance = await api.start(hub=neighbour.hub)
    assert (await api.call("GET", f"instance/{instance}"))["status"] == "running"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"report": None},
        {"report": {"instance": b"\xff", "sequence": "", "state": "running"}},
        {"report": to_map(report(OTHER, "running"))},
        {"report": {**to_map(report(OTHER, "running")), "error": {"of": [b"bytes"]}}},
    ],
    ids=range(5),
)
async def test_start_that_is_answered_wrongly_is_no_failure_of_ours(
    api: Api, answer: dict[str, Any]
) -> None:
    async with api.agent("good") as good, api.agent("evil") as evil:
        evil.responders["instance.start"] = lambda fields: answer
        sequence = await api.upload()
        async with api.http.post(
            f"/api/v1/sequence/{sequence}/start", json={"hub": "evil"}
        ) as response:
            assert response.status in (200, 502)
        await assert_unharmed(api, good)


@pytest.mark.parametrize("answer", [{}, {"healthy": [1], "process_id": {"a": b"\xff"}}])
async def test_health_that_is_none_is_not_passed_on(api: Api, answer: dict[str, Any]) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        agent.responders["instance.health"] = lambda fields: answer
        told = await api.call("GET", f"instance/{instance}/health")
        assert told == {"healthy": False, "processId": 77}


@pytest.mark.parametrize(
    "fields",
    [
        {"started_ms": 2**62, "ended_ms": -5, "exit_code": 2**63, "process_id": -1},
        {"requires": {"requires": ["x"]}, "provides": {"provides": {"a": 1}}},
        {"reason": "\0" * 50_000},
        {"error": {"message": {"not": ["a", "text"]}}},
    ],
    ids=range(4),
)
async def test_odd_report_can_be_shown(api: Api, fields: dict[str, Any]) -> None:
    sequence = await api.upload()
    async with api.agent("good") as good, api.agent("evil") as evil:
        await evil.sync(report(OTHER, "running", sequence=sequence, **fields))
        assert (await api.call("GET", f"instance/{OTHER}"))["status"] == "running"
        await assert_unharmed(api, good)


@pytest.mark.parametrize("fields", [{"requires": {"a": b"x"}}, {"error": {"x": float("nan")}}])
async def test_report_that_json_cannot_say_ends_the_link(api: Api, fields: dict[str, Any]) -> None:
    sequence = await api.upload()
    async with api.agent("good") as good:
        machine: Machine = await api.machine("evil")
        async with connected(machine) as evil:
            await evil.tell(report(OTHER, "running", sequence=sequence, **fields))
            await evil.end.websocket.wait_closed()
        await api.call("GET", f"instance/{OTHER}", expect=404)
        await assert_unharmed(api, good)


async def test_hub_tells_nothing_of_what_another_one_runs(api: Api) -> None:
    async with api.agent("good") as good, api.agent("evil") as evil:
        instance = await api.start(hub="good")
        await evil.tell(report(instance, "errored", exit_code=66))
        await evil.sync(report(instance, "completed"))
        assert (await api.call("GET", f"instance/{instance}"))["status"] == "running"
        await assert_unharmed(api, good)


async def test_hub_reaches_nothing_of_another_space(api: Api) -> None:
    package = packages.python(packages.LINES)
    sequence = await api.upload(package)
    sha256 = (await api.call("GET", f"sequence/{sequence}"))["sha256"]
    await api.call("POST", "topics", json={"id": "news", "content-type": NDJSON})
    await api.call("POST", "topic/news", data=b'{"n": 1}\n', headers={"Content-Type": NDJSON})
    async with api.agent("good") as good, api.agent("evil", space="other") as evil:
        instance = await api.start(sequence, hub="good")
        await evil.sync(report(instance, "errored", sequence=sequence))
        assert (await api.call("GET", f"instance/{instance}"))["status"] == "running"
        asked = await evil.open(kind="package", sha256=sha256)
        await evil.until(lambda: asked.reset)
        assert asked.reset == "NOT_FOUND"
        # A Topic of the same name is another one.
        writing = await evil.open(
            kind="publish", topic="news", content_type=NDJSON, producer=bytes(16), epoch=1
        )
        await evil.until(lambda: writing.accepted)
        await evil.send(writing, lines("[]", producer=bytes(16)))
        await evil.until(lambda: writing.received)
        reading = await evil.open(
            kind="subscribe", topic="news", content_type=NDJSON, instance=instance
        )
        await evil.until(lambda: reading.received)
        assert b"[]" in reading.received
        assert b'{"n": 1}' not in reading.received
        await assert_unharmed(api, good)


async def test_flood_of_nonsense_is_answered_and_leaves_the_others_alone(api: Api) -> None:
    async with api.agent("good") as good, api.agent("evil") as evil:
        for number in range(3000):
            evil.mux.control({"type": "no.such.request", "id": number + 100})
            evil.mux.control({"type": "no.such.notice", "x": "y" * 100})
            if number % 100 == 0:
                await evil.flush()
        opened = [await evil.open(kind="no such kind") for _ in range(1000)]
        await evil.until(lambda: all(each.reset for each in opened))
        await evil.until(lambda: len(evil.answers) >= 3000)
        await assert_unharmed(api, good)


async def test_order_to_kill_that_was_lost_with_its_agent_is_given_again(api: Api) -> None:
    machine = await api.machine()
    async with connected(machine) as agent:
        agent.responders["instance.kill"] = lambda fields: None
        instance = await api.start()
        killing = asyncio.create_task(
            api.call("POST", f"instance/{instance}/_kill", json={}, expect=503)
        )
        await agent.until(lambda: agent.asked("instance.kill"))
    # The agent is started anew, and has heard nothing of it.
    machine.boot = bytes(16)
    async with connected(machine, sync=False) as agent:
        await agent.sync(report(instance, "running"))
        await agent.until(lambda: agent.asked("instance.kill"))
        await killing
