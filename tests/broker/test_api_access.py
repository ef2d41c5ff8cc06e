"""Who may call what: made from the table of routes, so that no route is forgotten."""

import pytest
from tests.support.api import Api

from sth_broker.api.route import Route
from sth_broker.api.table import ROUTES

CLOSED = [each for each in ROUTES if each.scope is not None]
OPEN = [each for each in ROUTES if each.scope is None]
MUTATING = [each for each in CLOSED if each.method != "GET"]
UUID = "00000000-0000-4000-8000-000000000000"


def path_of(route: Route) -> str:
    return route.path.replace("{id}", UUID).replace("{topic}", "some-topic")


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_table_leaves_open_what_the_design_says_and_nothing_else() -> None:
    assert {each.path for each in OPEN} == {"/api/v1/version", "/healthz", "/readyz"}
    assert all(each.scope != "read" for each in MUTATING)


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic YTpi", "Bearer"])
async def test_every_route_without_a_valid_token_is_unauthorized(
    api: Api, authorization: str | None
) -> None:
    for route in CLOSED:
        headers = {"Authorization": authorization or "", "Content-Type": "application/json"}
        async with api.http.request(route.method, path_of(route), headers=headers) as response:
            assert response.status == 401, named(route)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert (await response.json())["code"] == "UNAUTHORIZED"


async def test_every_mutating_route_refuses_a_token_of_scope_read(api: Api) -> None:
    headers = {"Authorization": f"Bearer {await api.make_token('read')}"}
    for route in MUTATING:
        async with api.http.request(route.method, path_of(route), headers=headers) as response:
            assert response.status == 403, named(route)
            assert (await response.json())["code"] == "FORBIDDEN"


async def test_every_admin_route_refuses_a_token_of_scope_run(api: Api) -> None:
    headers = {"Authorization": f"Bearer {await api.make_token('run')}"}
    for route in (each for each in CLOSED if each.scope == "admin"):
        async with api.http.request(route.method, path_of(route), headers=headers) as response:
            assert response.status == 403, named(route)


async def test_revoked_token_is_unauthorized_at_once(api: Api) -> None:
    made = await api.call("POST", "tokens/api", json={"scope": "read"})
    await api.call("GET", "status", token=made["token"])
    await api.call("DELETE", f"tokens/api/{made['id']}")
    await api.call("GET", "status", token=made["token"], expect=401)


async def test_open_routes_answer_without_a_token(api: Api) -> None:
    for route in OPEN:
        async with api.http.get(route.path, headers={"Authorization": ""}) as response:
            assert response.status == 200, named(route)


async def test_unknown_path_below_the_base_asks_for_a_token_first(api: Api) -> None:
    async with api.http.get("/api/v1/nothing", headers={"Authorization": ""}) as response:
        assert response.status == 401
    assert (await api.call("GET", "nothing", expect=404))["code"] == "NOT_FOUND"


async def test_wrong_method_names_those_that_are_allowed(api: Api) -> None:
    async with api.http.put("/api/v1/sequences") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET"


async def test_foreign_host_is_refused_on_loopback(api: Api) -> None:
    for host in ("evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"):
        async with api.http.get("/api/v1/version", headers={"Host": host}) as response:
            assert response.status == 403, host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9"):
        async with api.http.get("/api/v1/version", headers={"Host": host}) as response:
            assert response.status == 200, host


async def test_objects_of_another_space_answer_like_missing_ones(api: Api) -> None:
    other = await api.make_token("admin", space="other")
    sequence = await api.upload()
    await api.call("POST", "tokens/join", json={})
    join_token = (await api.call("GET", "tokens/join"))[0]["id"]
    async with api.agent() as agent:
        instance = await api.start(sequence)
        for method, path in [
            ("GET", "sequence/{}"),
            ("DELETE", "sequence/{}"),
            ("GET", "sequence/{}/instances"),
            ("GET", "instance/{}"),
            ("GET", "instance/{}/health"),
            ("GET", "instance/{}/output"),
            ("POST", "instance/{}/_stop"),
            ("POST", "instance/{}/_kill"),
            ("GET", "hub/{}"),
            ("POST", "hub/{}/_revoke"),
            ("DELETE", "tokens/join/{}"),
        ]:
            kind = path.split("/", maxsplit=1)[0]
            theirs = {"sequence": sequence, "instance": instance, "hub": agent.hub}
            own = theirs.get(kind, join_token)
            answers = [
                await api.call(method, path.format(each), expect=404, token=other, json={})
                for each in (own, UUID)
            ]
            found, missing = (str(each).replace(own, "ID").replace(UUID, "ID") for each in answers)
            assert found == missing, path
        assert agent.asked("instance.stop") == agent.asked("instance.kill") == []
    for path in ("sequences", "instances", "hubs", "tokens/join"):
        assert await api.call("GET", path, token=other) == []
