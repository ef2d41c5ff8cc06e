"""Hostile and broken requests: each gets a clear error, and the broker lives on."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.api import Api, running_api
from tests.support.raw_http import connection, request_head

from sth_broker.api import bodies
from sth_broker.api.sequences import parse_start
from sth_broker.api.table import ROUTES
from sth_protocol.errors import BadRequest

JSON = {"Content-Type": "application/json"}
WITH_JSON = [
    ("POST", "topics"),
    ("POST", "tokens/join"),
    ("POST", "tokens/api"),
    ("POST", "sequence/{id}/start"),
    ("POST", "instance/{id}/_stop"),
    ("POST", "instance/{id}/_kill"),
]
BAD_JSON = [
    b"{",
    b"\xff\xfe\x00",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": 1e999}',
    b'{"a": "\\ud800"}',
    b"[" * 100_000,
    b'{"a": ' + b"9" * 10_000 + b"}",
    b"null null",
    b'"text"',
    b"7",
    b"[1, 2, 3]",
]


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


async def alive(api: Api) -> None:
    await api.call("GET", "status")


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
async def test_bad_json_is_a_bad_request_on_every_route_that_reads_it(
    api: Api, body: bytes
) -> None:
    async with api.agent():
        ids = {"sequence": await api.upload()}
        ids["instance"] = await api.start(ids["sequence"])
        for method, path in WITH_JSON:
            filled = path.replace("{id}", ids.get(path.split("/", maxsplit=1)[0], ""))
            answer = await api.call(method, filled, data=body, headers=JSON, expect=400)
            assert set(answer) >= {"error", "code", "message", "hint"}, path


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json; charset=utf-16", "application/jsonx", ";;;", "\x80"],
)
async def test_json_needs_its_content_type(api: Api, content_type: str) -> None:
    await api.call(
        "POST",
        "tokens/join",
        data=b"{}",
        headers={"Content-Type": content_type} if content_type else {},
        skip_auto_headers=["Content-Type"],
        expect=400,
    )


async def test_text_json_and_a_charset_are_understood(api: Api) -> None:
    for content_type in ("text/json", "application/json; charset=UTF-8"):
        headers = {"Content-Type": content_type}
        await api.call("POST", "tokens/join", data=b"{}", headers=headers)


async def test_json_beyond_its_limit_is_refused_before_it_is_read(api: Api) -> None:
    body = json.dumps({"name": "x" * 1024 * 1024}).encode()
    await api.call("POST", "tokens/join", data=io.BytesIO(body), headers=JSON, expect=413)

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    await api.call("POST", "tokens/join", data=chunks(), headers=JSON, expect=413)
    await alive(api)


async def test_json_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async with running_api(tmp_path, json_timeout=0.05) as api, connection(api) as raw:
        headers = ("Content-Type: application/json", "Content-Length: 5")
        await raw.send(request_head(api, "POST", "tokens/join", *headers) + b"{")
        assert (await raw.head())[0] == 504


IDS = [
    "..",
    "%2e%2e",
    "%00",
    "%ff",
    "a%2Fb",
    "%0d%0aX:%20y",
    "x" * 4000,
    "' OR 1=1 --".replace(" ", "%20"),
    "{id}",
    "-",
    "ünïcode",
    "%F0%9F%98%80",
]


@pytest.mark.parametrize("identity", IDS, ids=range(len(IDS)))
async def test_odd_ids_are_never_found_and_never_an_error_of_ours(api: Api, identity: str) -> None:
    for route in ROUTES:
        if "{" not in route.path:
            continue
        path = route.path.replace("{id}", identity).replace("{topic}", identity)
        async with connection(api) as raw:
            target = path.removeprefix("/api/v1/")
            headers = ("Content-Type: application/json", "Content-Length: 2", "Connection: close")
            await raw.send(request_head(api, route.method, target, *headers) + b"{}")
            status, answered = await raw.head()
            creates = route.path.startswith("/api/v1/topic/") and status == 200
            assert creates or 400 <= status < 500, (route, status)
            assert "x" not in answered
    await alive(api)


@pytest.mark.parametrize(
    "text",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /api/v1/version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /api/v1/version HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
        b"POST /api/v1/sequence HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/sequence HTTP/1.1\r\nHost: localhost\r\nContent-Length: -4\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
async def test_malformed_http_is_closed_with_a_client_error(api: Api, text: bytes) -> None:
    async with connection(api) as raw:
        await raw.send(text)
        raw.writer.write_eof()
        answer = await raw.rest()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:100]
    await alive(api)


async def test_connections_that_close_at_once_do_no_harm(api: Api) -> None:
    async with api.agent():
        instance = await api.start()
        for method, path, headers in [
            ("GET", f"instance/{instance}/output", ()),
            ("POST", f"instance/{instance}/input", ("Content-Type: a/b", "Content-Length: 9")),
            ("POST", f"instance/{instance}/_stop", ("Content-Length: 9",)),
            ("POST", "sequence", ("Transfer-Encoding: chunked",)),
            ("GET", "instances", ()),
        ]:
            for _ in range(3):
                async with connection(api) as raw:
                    await raw.send(request_head(api, method, path, *headers))
                    raw.writer.transport.abort()
        await alive(api)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["args", "appConfig", "inputTopic", "outputTopic", "limits", "instanceId", "hub", "other"]
)


@settings(max_examples=300)
@given(st.dictionaries(FIELDS, VALUES, max_size=6))
def test_parse_start_takes_a_body_or_refuses_it(body: dict[str, Any]) -> None:
    try:
        request = parse_start(body)
    except BadRequest as error:
        assert error.message
    else:
        assert isinstance(request.args, list)
        assert isinstance(request.config, dict)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["uses", "ttlSeconds", "name", "scope"]), VALUES)
async def test_any_value_in_a_token_request_is_taken_or_refused(
    api: Api, field: str, value: Any
) -> None:
    body = json.dumps({field: value}).encode()
    for kind in ("join", "api"):
        async with api.http.post(f"/api/v1/tokens/{kind}", data=body, headers=JSON) as response:
            assert response.status in (200, 400), await response.text()


@pytest.mark.parametrize(
    "token",
    [
        b"\xff\xfe.\xfd.\xfc",
        b"...",
        b"." * 4000,
        b64(b"[" * 2500) + b".e30.e30",
        b64(b'{"alg": ["EdDSA"]}') + b".e30.e30",
        b64(b'{"alg": "none"}') + b".e30.",
        b64(b'{"alg": "EdDSA", "crit": [1], "b64": 7}') + b".e30.e30",
        b64(b"\xff") + b".e30.e30",
        b64(b"7") + b".7.7",
    ],
    ids=range(9),
)
async def test_token_that_is_none_is_unauthorized(api: Api, token: bytes) -> None:
    async with connection(api) as raw:
        await raw.send(
            b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Authorization: Bearer " + token + b"\r\n\r\n"
        )
        assert (await raw.head())[0] == 401


def test_take_tells_truth_from_numbers() -> None:
    assert bodies.take({"a": 1}, "a", int, default=0) == 1
    assert bodies.take({"a": None}, "a", int, default=7) == 7
    for kind, value in [(int, True), (bool, 1), (str, 1), (list, {}), (dict, [])]:
        with pytest.raises(BadRequest):
            bodies.take({"a": value}, "a", kind, default=None)
