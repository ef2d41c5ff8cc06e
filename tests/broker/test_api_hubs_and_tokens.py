"""Hubs and tokens over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Api, running_api
from tests.support.broker_core import Machine, close_on

from sth_protocol.jointoken import parse_token


async def test_join_token_lets_one_machine_in(api: Api) -> None:
    made = await api.call("POST", "tokens/join", json={})
    assert made["command"] == f"sudo sth-agent join {made['token']}"
    assert made["uses"] == 1
    assert made["expires"].endswith("Z")
    assert "loopback" in made["warning"]
    token = parse_token(made["token"])
    assert token.public_id == made["id"]
    assert token.addresses == (api.broker.agents,)
    status, _ = await Machine(api).enroll(token, name="pi")
    assert status == 200
    listed = (await api.call("GET", "tokens/join"))[0]
    assert (listed["id"], listed["uses"], listed["used"]) == (made["id"], 1, 1)
    assert made["token"] not in str(listed)
    assert (await Machine(api).enroll(token, name="pi2"))[0] == 410


async def test_join_token_warns_only_when_no_other_machine_can_dial_it(tmp_path: Path) -> None:
    async with running_api(tmp_path, advertise=("198.18.0.1",)) as api:
        made = await api.call("POST", "tokens/join", json={"uses": 0, "ttlSeconds": 0})
        assert (made["warning"], made["expires"], made["uses"]) == ("", "", 0)


async def test_revoked_join_token_lets_nobody_in(api: Api) -> None:
    made = await api.call("POST", "tokens/join", json={"name": "pi"})
    headers = {"Content-Type": "application/json"}
    revoked = await api.call("DELETE", f"tokens/join/{made['id']}", headers=headers)
    assert revoked["revoked"]
    assert (await Machine(api).enroll(parse_token(made["token"])))[0] == 410


async def test_api_token_has_its_scope_and_is_shown_once(api: Api) -> None:
    made = await api.call("POST", "tokens/api", json={"scope": "read", "name": "dashboard"})
    assert made["token"].count(".") == 2
    await api.call("GET", "instances", token=made["token"])
    await api.call("GET", "tokens/api", token=made["token"], expect=403)
    listed = await api.call("GET", "tokens/api")
    assert [each["scope"] for each in listed] == ["admin", "read"]
    assert listed[1]["name"] == "dashboard"
    assert made["token"] not in str(listed)


async def test_token_of_one_kind_is_not_found_among_the_other(api: Api) -> None:
    made = await api.call("POST", "tokens/api", json={})
    await api.call("DELETE", f"tokens/join/{made['id']}", expect=404)
    await api.call("DELETE", "tokens/api/unknown", expect=404)
    await api.call("DELETE", f"tokens/api/{made['id']}")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("join", {"uses": -1}),
        ("join", {"uses": "many"}),
        ("join", {"uses": True}),
        ("join", {"uses": 10**12}),
        ("join", {"ttlSeconds": "1h"}),
        ("join", {"ttlSeconds": -1}),
        ("join", {"ttlSeconds": 1e300}),
        ("join", {"name": "Not A Label"}),
        ("join", {"name": 7}),
        ("join", []),
        ("api", {"scope": "root"}),
        ("api", {"scope": 7}),
        ("api", {"ttlSeconds": 0}),
        ("api", {"name": "x" * 1000}),
        ("api", {"name": "line\nbreak"}),
        ("api", "text"),
    ],
)
async def test_token_with_wrong_fields_is_refused(api: Api, kind: str, body: Any) -> None:
    await api.call("POST", f"tokens/{kind}", json=body, expect=400)
    assert len(await api.call("GET", f"tokens/{kind}")) == (kind == "api")


async def test_hub_is_shown_by_id_and_name(api: Api) -> None:
    assert await api.call("GET", "hubs") == []
    machine = await api.machine("pi")
    offline = (await api.call("GET", "hubs"))[0]
    assert (offline["name"], offline["status"], offline["lastSeen"]) == ("pi", "offline", "")
    async with api.agent("pi-2") as agent:
        shown = await api.call("GET", "hub/pi-2")
        assert shown == await api.call("GET", f"hub/{agent.hub}") | {"rttMs": shown["rttMs"]}
        assert (shown["id"], shown["status"], shown["space"]) == (agent.hub, "online", "default")
        assert (shown["arch"], shown["remote"]) == ("aarch64", "127.0.0.1")
        assert shown["instances"] == 0
        await api.start()
        assert (await api.call("GET", "hub/pi-2"))["instances"] == 1
        assert (await api.call("GET", "status"))["hubsOnline"] == 1
    assert machine.hub == offline["id"]
    await api.call("GET", "hub/other", expect=404)


async def test_instances_of_a_revoked_hub_have_ended(api: Api) -> None:
    async with api.agent("pi"), api.agent("other"):
        gone, kept = await api.start(hub="pi"), await api.start(hub="other")
        await api.call("POST", "hub/pi/_revoke", json={})
        shown = await api.call("GET", f"instance/{gone}")
        assert shown["status"] == "errored"
        assert shown["terminated"]["reason"] == "its Hub pi was revoked"
        assert (await api.call("GET", f"instance/{kept}"))["status"] == "running"


async def test_revoked_hub_is_cut_and_gone(api: Api) -> None:
    machine = await api.machine("pi")
    async with machine.link() as end:
        answer = await api.call("POST", "hub/pi/_revoke", json={})
        assert (answer["id"], answer["status"]) == (machine.hub, "revoked")
        assert (await close_on(end.websocket)).code == "REVOKED"
    assert await api.call("GET", "hubs") == []
    assert len(await api.call("GET", "hubs?all=true")) == 1
    await api.call("POST", "hub/other/_revoke", json={}, expect=404)
