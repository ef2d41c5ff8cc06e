"""Sequences over HTTP, as the original's clients see them."""

from typing import Any

import pytest
from tests.support import packages
from tests.support.api import Api, running_api
from tests.support.scripted_agent import AgentChannel, ScriptedAgent

MISSING = "00000000-0000-4000-8000-000000000000"
JSON = {"Content-Type": "application/json"}


async def test_upload_registers_a_sequence_that_is_found_by_id_and_name(api: Api) -> None:
    sequence = await api.upload(packages.python(packages.LINES, name="lines"))
    shown = await api.call("GET", f"sequence/{sequence}")
    assert shown["id"] == sequence
    assert shown["name"] == shown["config"]["name"] == "lines"
    assert shown["config"]["language"] == "py"
    assert shown["config"]["entrypointPath"] == "main.py"
    assert shown["config"]["engines"] == {"python3": ">=3"}
    assert shown["config"]["packageSize"] > 0
    assert (shown["location"], shown["instances"]) == ("STH", [])
    assert await api.call("GET", "sequence/lines") == shown
    assert await api.call("GET", "sequences") == [shown]


async def test_upload_of_the_same_content_twice_makes_two_sequences(api: Api) -> None:
    body = packages.node("module.exports = (x) => x;")
    first, second = await api.upload(body), await api.upload(body)
    assert first != second
    assert len(await api.broker.services.packages.list()) == 1
    await api.call("DELETE", f"sequence/{first}", headers=JSON)
    assert len(await api.broker.services.packages.list()) == 1
    await api.call("DELETE", f"sequence/{second}", headers=JSON)
    assert await api.broker.services.packages.list() == []


async def test_name_finds_the_newest_sequence(api: Api) -> None:
    await api.upload(packages.python(packages.LINES, name="same"))
    newest = await api.upload(packages.python(packages.RECORDS, name="same"))
    assert (await api.call("GET", "sequence/same"))["id"] == newest


async def test_upload_may_give_another_name(api: Api) -> None:
    await api.call("POST", "sequence?name=mine", data=packages.python(packages.LINES))
    assert (await api.call("GET", "sequence/mine"))["name"] == "mine"


async def test_sequences_survive_a_restart(api: Api) -> None:
    sequence = await api.upload()
    before = await api.call("GET", f"sequence/{sequence}")
    await api.broker.services.sequences.load()
    assert await api.call("GET", f"sequence/{sequence}") == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not an archive",
        packages.python("pass")[:-20],
        packages.package({"a.py": ""}, main="missing.py"),
        packages.package({"main.py": ""}, main=""),
    ],
    ids=["empty", "garbage", "cut", "main missing", "no main"],
)
async def test_bad_package_is_unprocessable_and_leaves_nothing(api: Api, body: bytes) -> None:
    answer = await api.call("POST", "sequence", data=body, expect=422)
    assert answer["error"]["code"] == "PRERUNNER_ERROR"
    assert answer["error"]["data"] == answer["message"] != ""
    assert answer["code"] == "BAD_PACKAGE"
    await nothing_left(api)


async def test_upload_with_the_wrong_content_type_is_refused(api: Api) -> None:
    headers = {"Content-Type": "text/html"}
    await api.call("POST", "sequence", data=b"x", headers=headers, expect=415)


async def test_upload_beyond_the_limit_is_refused(tmp_path: Any) -> None:
    async with running_api(tmp_path, max_package_bytes=1000) as api:
        await api.call("POST", "sequence", data=b"x" * 1001, expect=413)

        async def chunks() -> Any:
            for _ in range(3):
                yield b"x" * 500

        await api.call("POST", "sequence", data=chunks(), expect=413)
        await nothing_left(api)


async def test_update_gives_new_content_under_the_same_id(api: Api) -> None:
    sequence = await api.upload(packages.python(packages.LINES, name="one"))
    body = packages.node("module.exports = (x) => x;")
    assert await api.call("PUT", f"sequence/{sequence}", data=body) == {"id": sequence}
    shown = await api.call("GET", f"sequence/{sequence}")
    assert (shown["name"], shown["config"]["language"]) == ("one", "js")
    assert len(await api.broker.services.packages.list()) == 1
    await api.call("PUT", f"sequence/{MISSING}", data=body, expect=404)


async def test_sequence_with_live_instances_is_kept_unless_told_otherwise(api: Api) -> None:
    async with api.agent() as agent:
        sequence = await api.upload()
        instance = await api.start(sequence)
        assert (await api.call("GET", f"sequence/{sequence}"))["instances"] == [instance]
        assert await api.call("GET", f"sequence/{sequence}/instances") == [instance]
        refused = await api.call("DELETE", f"sequence/{sequence}", headers=JSON, expect=409)
        assert refused["error"] == "Can't remove- Sequence in use"
        body = packages.python(packages.LINES)
        await api.call("PUT", f"sequence/{sequence}", data=body, expect=409)
        killing = {**JSON, "x-seq-kill-inst": "true"}
        answer = await api.call("DELETE", f"sequence/{sequence}", headers=killing)
        assert answer == {"id": sequence}
        assert [each["instance"] for each in agent.asked("instance.kill")] == [instance]
    await api.call("GET", f"sequence/{sequence}", expect=404)


async def test_missing_sequence_is_not_found(api: Api) -> None:
    for method, path in [
        ("GET", f"sequence/{MISSING}"),
        ("DELETE", f"sequence/{MISSING}"),
        ("GET", f"sequence/{MISSING}/instances"),
    ]:
        answer = await api.call(method, path, headers=JSON, expect=404)
        assert answer["error"] == f"Sequence {MISSING} not found"


async def test_agents_fetch_packages_of_their_own_space_only(api: Api) -> None:
    body = packages.python(packages.LINES)
    sequence = await api.upload(body)
    sha256 = (await api.call("GET", f"sequence/{sequence}"))["sha256"]
    async with api.agent() as agent, api.agent("foreign", space="other") as foreign:
        channel = await agent.open(kind="package", sha256=sha256)
        await agent.until(lambda: channel.finished)
        assert bytes(channel.received) == body
        for wrong in (sha256, "0" * 64, 7, None):
            refused = await foreign.open(kind="package", sha256=wrong)
            await reset(foreign, refused)
            assert refused.reset == "NOT_FOUND"


async def reset(agent: ScriptedAgent, channel: AgentChannel) -> None:
    await agent.until(lambda: channel.reset)


async def nothing_left(api: Api) -> None:
    """No Sequence, no package, no temporary file."""
    assert await api.call("GET", "sequences") == []
    assert await api.broker.services.packages.list() == []
    unfinished = api.broker.directory.store / "packages" / "unfinished"
    assert list(unfinished.iterdir()) == []
