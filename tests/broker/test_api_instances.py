"""Instances over HTTP: start, show, stop, kill, and what Hubs say of them."""

from pathlib import Path
from typing import Any

import pytest
from tests.support import packages
from tests.support.api import Api, running_api
from tests.support.scripted_agent import ScriptedAgent, connected, report

from sth_protocol.errors import InstanceFailed, SandboxRefused
from sth_protocol.model import to_map

OWN_ID = "my-own-instance-id-of-36-characters-"


async def test_start_sends_the_spec_and_answers_with_the_id(api: Api) -> None:
    async with api.agent("pi") as agent:
        sequence = await api.upload(packages.python(packages.LINES, name="lines"))
        answer = await api.call(
            "POST",
            "sequence/lines/start",
            json={
                "args": [1, "two", None],
                "appConfig": {"k": 1.5},
                "inputTopic": "in",
                "outputTopic": "out",
                "limits": {"memory": 64},
            },
        )
        assert answer["message"] == f"Sequence {answer['id']} starting"
        spec = agent.asked("instance.start")[0]["spec"]
        assert spec["instance"] == answer["id"]
        assert (spec["sequence"], spec["language"], spec["main"]) == (sequence, "python", "main.py")
        assert (spec["args"], spec["config"]) == ([1, "two", None], {"k": 1.5})
        assert (spec["input_topic"], spec["output_topic"]) == ("in", "out")
        assert spec["limits"] == {"memory": 64}
        shown = await api.call("GET", f"instance/{answer['id']}")
        assert shown["status"] == "running"
        assert (shown["hub"], shown["hubName"]) == (agent.hub, "pi")
        assert shown["sequence"]["id"] == sequence
        assert (shown["args"], shown["appConfig"]) == ([1, "two", None], {"k": 1.5})
        assert (shown["requires"], shown["provides"]) == ("in", "out")
        assert await api.call("GET", "instances") == [shown]


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
async def test_start_needs_no_body(api: Api, body: bytes) -> None:
    async with api.agent():
        sequence = await api.upload()
        headers = {"Content-Type": "application/json"}
        path = f"sequence/{sequence}/start"
        assert (await api.call("POST", path, data=body, headers=headers))["id"]


async def test_start_chooses_the_hub_that_is_asked_for(api: Api) -> None:
    async with api.agent("a") as first, api.agent("b") as second:
        sequence = await api.upload()
        for hub, agent in [("a", first), (second.hub, second), ("a", first)]:
            instance = await api.start(sequence, hub=hub)
            assert agent.asked("instance.start")[-1]["spec"]["instance"] == instance
        # The one with fewer Instances.
        await api.start(sequence)
        assert len(second.asked("instance.start")) == 2
        answer = await start_fails(api, sequence, 404, hub="c")
        assert answer["error"] == "Hub c not found"


async def start_fails(api: Api, sequence: str, status: int, **body: Any) -> Any:
    """The answer to a start that fails, which both generations of clients must understand."""
    answer = await api.call("POST", f"sequence/{sequence}/start", json=body, expect=status)
    assert answer["result"] == "error"
    assert isinstance(answer["error"], str)
    return answer


async def test_start_without_a_hub_says_so(api: Api) -> None:
    sequence = await api.upload()
    assert (await start_fails(api, sequence, 503))["code"] == "HUB_OFFLINE"
    async with api.agent("pi"):
        node = await api.upload(packages.node("module.exports = (x) => x;"))
        assert "node" in (await start_fails(api, node, 409))["error"]
    assert (await start_fails(api, "missing", 404))["code"] == "NOT_FOUND"


async def test_start_that_the_hub_refuses_leaves_a_record_with_the_reason(api: Api) -> None:
    async with api.agent() as agent:
        sequence = await api.upload()
        agent.responders["instance.start"] = lambda fields: SandboxRefused(
            "no user namespaces", hint="sysctl"
        )
        answer = await start_fails(api, sequence, 409)
        assert (answer["code"], answer["hint"]) == ("SANDBOX_REFUSED", "sysctl")
        agent.responders["instance.start"] = lambda fields: InstanceFailed("SyntaxError")
        await start_fails(api, sequence, 400)
        shown = await api.call("GET", "instances")
        assert [each["status"] for each in shown] == ["errored", "errored"]
        assert shown[0]["error"]["code"] == "SANDBOX_REFUSED"


async def test_start_of_a_program_that_fails_to_load_shows_its_traceback(api: Api) -> None:
    async with api.agent() as agent:
        failure = {"message": "NameError: x", "traceback": "File main.py, line 1"}
        agent.responders["instance.start"] = lambda fields: {
            "report": to_map(
                report(fields["spec"]["instance"], "errored", exit_code=22, error=failure)
            )
        }
        answer = await start_fails(api, await api.upload(), 400)
        assert answer["code"] == "INSTANCE_FAILED"
        assert "NameError" in answer["error"]
        shown = (await api.call("GET", "instances"))[0]
        assert shown["error"] == failure
        assert shown["terminated"]["exitcode"] == 22


async def test_own_id_is_kept_and_may_be_used_again_after_the_end(api: Api) -> None:
    async with api.agent() as agent:
        sequence = await api.upload()
        assert await api.start(sequence, instanceId=OWN_ID) == OWN_ID
        answer = await start_fails(api, sequence, 409, instanceId=OWN_ID)
        assert answer["error"] == "Instance with a given ID already exists"
        await api.call("POST", f"instance/{OWN_ID}/_kill", json={}, expect=202)
        assert await api.start(sequence, instanceId=OWN_ID) == OWN_ID
        assert [each["instance"] for each in agent.asked("instance.forget")] == [OWN_ID]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "body",
    [
        {"args": {}},
        {"args": "x"},
        {"appConfig": []},
        {"inputTopic": 7},
        {"inputTopic": "../etc"},
        {"outputTopic": "a b"},
        {"limits": []},
        {"instanceId": "short"},
        {"instanceId": 7},
        {"hub": ["a"]},
        {"args": [2**70]},
        {"args": nested(40)},
        {"args": nested(900)},
        {"args": ["x" * 70_000]},
    ],
)
async def test_start_with_wrong_fields_is_refused(api: Api, body: dict[str, Any]) -> None:
    async with api.agent() as agent:
        sequence = await api.upload()
        status = 413 if "x" * 70_000 in body.get("args", []) else 400
        await start_fails(api, sequence, status, **body)
        assert agent.asked("instance.start") == []
        assert await api.call("GET", "instances") == []


@pytest.mark.parametrize(
    "body",
    [
        {"timeout": 5, "canCallKeepalive": True},
        [4001, {"timeout": 5, "canCallKeepalive": True}],
    ],
    ids=["object", "array"],
)
async def test_stop_answers_with_the_instance_when_it_has_stopped(api: Api, body: Any) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        answer = await api.call("POST", f"instance/{instance}/_stop", json=body, expect=202)
        assert (answer["id"], answer["status"]) == (instance, "completed")
        asked = agent.asked("instance.stop")[0]
        assert (asked["timeout_ms"], asked["can_keepalive"]) == (5, True)
        assert (await api.call("GET", f"instance/{instance}"))["terminated"]["exitcode"] == 0
        # It is over already: the same answer, and nothing is asked.
        await api.call("POST", f"instance/{instance}/_stop", json=body, expect=202)
        assert len(agent.asked("instance.stop")) == 1


@pytest.mark.parametrize(
    ("operation", "body", "message"),
    [
        ("_stop", {"timeout": "7"}, "Invalid timeout format"),
        ("_stop", {"timeout": True}, "Invalid timeout format"),
        ("_stop", {"timeout": -1}, "Invalid timeout format"),
        ("_stop", {"timeout": 1e9}, "Invalid timeout format"),
        ("_stop", {"canCallKeepalive": 1}, "Invalid canCallKeepalive format"),
        ("_kill", {"removeImmediately": "no"}, "Invalid removeImmediately format"),
        ("_stop", [4002, {}], "the body is neither"),
        ("_stop", [4001], "the body is neither"),
        ("_kill", "text", "the body is neither"),
    ],
)
async def test_stop_and_kill_refuse_wrong_fields(
    api: Api, operation: str, body: Any, message: str
) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        answer = await api.call("POST", f"instance/{instance}/{operation}", json=body, expect=400)
        assert message in answer["error"]
        assert agent.asked("instance.stop") == agent.asked("instance.kill") == []


async def test_kill_ends_and_removes_if_it_is_told_to(api: Api) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        body = [4002, {"removeImmediately": False}]
        answer = await api.call("POST", f"instance/{instance}/_kill", json=body, expect=202)
        assert answer["status"] == "completed"
        again = await api.call("POST", f"instance/{instance}/_kill", json=body, expect=400)
        assert again["error"] == "Instance not running"
        removing = {"removeImmediately": True}
        await api.call("POST", f"instance/{instance}/_kill", json=removing, expect=202)
        await api.call("GET", f"instance/{instance}", expect=404)
        assert [each["instance"] for each in agent.asked("instance.forget")] == [instance]


async def test_health_is_that_of_the_program(api: Api) -> None:
    async with api.agent():
        instance = await api.start()
        answer = await api.call("GET", f"instance/{instance}/health")
        assert answer == {"healthy": True, "processId": 77}


async def status(api: Api, instance: str) -> str:
    return str((await api.call("GET", f"instance/{instance}"))["status"])


async def settled(agent: ScriptedAgent) -> None:
    """What the agent has said so far has been taken in: a later request is answered."""
    await agent.request("nothing.known")


async def test_state_that_a_hub_reports_is_shown(api: Api) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        await agent.tell(report(instance, "errored", exit_code=23, reason="it raised"))
        await settled(agent)
        shown = await api.call("GET", f"instance/{instance}")
        assert shown["status"] == "errored"
        assert shown["terminated"] == {"exitcode": 23, "reason": "it raised"}
        await agent.tell(report(instance, "running"))
        await settled(agent)
        assert await status(api, instance) == "errored"


async def test_sync_without_an_instance_loses_it(api: Api) -> None:
    machine = await api.machine()
    async with connected(machine) as agent:
        kept, gone = await api.start(), await api.start()
        await agent.sync(report(kept, "running"))
        assert (await status(api, kept), await status(api, gone)) == ("running", "errored")
        shown = await api.call("GET", f"instance/{gone}")
        assert "lost" in shown["terminated"]["reason"]


async def test_sync_brings_back_what_the_broker_forgot(api: Api) -> None:
    async with api.agent() as agent:
        sequence = await api.upload()
        await agent.sync(report(OWN_ID, "running", sequence=sequence))
        shown = await api.call("GET", f"instance/{OWN_ID}")
        assert (shown["status"], shown["hubName"]) == ("running", "pi")
        assert shown["sequence"]["id"] == sequence


async def test_sync_ends_what_belongs_to_nobody(api: Api) -> None:
    async with api.agent() as agent:
        await agent.sync(report(OWN_ID, "running", sequence="unknown"))
        await agent.until(lambda: agent.asked("instance.forget"))
        assert [each["instance"] for each in agent.asked("instance.kill")] == [OWN_ID]
        await api.call("GET", f"instance/{OWN_ID}", expect=404)


async def test_sync_of_another_hub_neither_takes_nor_loses_an_instance(api: Api) -> None:
    async with api.agent("a") as first, api.agent("b") as second:
        instance = await api.start(hub="a")
        await second.sync(report(instance, "completed"))
        await second.tell(report(instance, "completed"))
        await settled(second)
        assert await status(api, instance) == "running"
        await first.sync(report(instance, "running"))
        assert await status(api, instance) == "running"


async def test_sync_of_nonsense_is_refused(api: Api) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        ours = to_map(report(instance, "running"))
        for fields in (
            {},
            {"instances": 7, "page": 0, "pages": 1},
            {"instances": [7], "page": 0, "pages": 1},
            {"instances": [{"instance": 1}], "page": 0, "pages": 1},
            {"instances": [to_map(report("no id", "running"))], "page": 0, "pages": 1},
            {"instances": [{**ours, "error": {"line": float("nan")}}], "page": 0, "pages": 1},
            {"instances": [{**ours, "provides": {"name": b"bytes"}}], "page": 0, "pages": 1},
            {"instances": [], "page": 3, "pages": 1},
        ):
            answer = await agent.request("hub.sync", **fields)
            assert answer.error is not None
        assert await status(api, instance) == "running"
        # What it said has reached no record, and none is held up by it.
        await api.start()


async def test_streams_of_an_ended_instance_are_forgotten_after_their_time(
    tmp_path: Path,
) -> None:
    async with running_api(tmp_path, stream_retention=0.05) as api, api.agent() as agent:
        instance = await api.start()
        await api.call("POST", f"instance/{instance}/_kill", json={}, expect=202)
        await agent.until(lambda: agent.asked("instance.forget"))
        # The record stays; the list shows what can still be read.
        assert await status(api, instance) == "completed"
        assert await api.call("GET", "instances?all=true") != []


async def test_instances_survive_a_restart_of_the_broker(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        machine = await api.machine()
        async with connected(machine):
            instance = await api.start(args=[1])
    async with running_api(tmp_path) as api:
        shown = await api.call("GET", f"instance/{instance}")
        assert (shown["status"], shown["args"]) == ("running", [1])
        machine.core = api
        async with connected(machine, sync=False) as agent:
            await agent.sync(report(instance, "completed"))
            assert await status(api, instance) == "completed"


async def test_requests_for_an_offline_hub_say_so_and_its_instances_are_still_shown(
    tmp_path: Path,
) -> None:
    async with running_api(tmp_path) as api, api.agent():
        instance = await api.start()
    async with running_api(tmp_path) as api:
        assert await status(api, instance) == "running"
        text = {"Content-Type": "text/plain"}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "_stop", {"json": {}}),
            ("POST", "_kill", {"json": {}}),
            ("GET", "health", {}),
            ("GET", "output", {}),
            ("POST", "input", {"data": b"x", "headers": text}),
        ]
        for method, path, options in requests:
            answer = await api.call(method, f"instance/{instance}/{path}", expect=503, **options)
            assert (answer["code"], "pi" in answer["error"]) == ("HUB_OFFLINE", True), path
        assert await status(api, instance) == "running"


async def test_only_the_newest_records_of_ended_instances_are_kept(tmp_path: Path) -> None:
    async with running_api(tmp_path, max_ended_instances=2) as api, api.agent() as agent:
        sequence = await api.upload()
        instances = [await api.start(sequence) for _ in range(4)]
        for number, instance in enumerate(instances):
            await agent.tell(report(instance, "completed", ended_ms=1000 + number))
        await settled(agent)
        shown = await api.call("GET", "instances?all=true")
        assert {each["id"] for each in shown} == set(instances[2:])
