"""The agents' port: whom TLS lets in, what the broker says of a certificate, and bad input."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import ClientError
from tests.support.broker_core import (
    Clock,
    Core,
    Machine,
    enrolment_body,
    make_key,
    running_core,
    show_certificate,
    signing_request,
)

from sth_broker.pki import SERVER_NAME, CertificateAuthority


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path / "broker") as core:
        yield core


def _foreign_context(core: Core, directory: Path) -> ssl.SSLContext:
    """Shows a certificate that another broker's CA has signed."""
    other = CertificateAuthority.open(directory, now=core.clock())
    key = make_key()
    issued = other.sign_agent(key.public_key(), space="default", hub="h", now=core.clock())
    context = Machine(core).context()
    show_certificate(context, key, issued.pem)
    return context


async def _refuse_foreign(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_core(directory / "broker") as core:
        context = _foreign_context(core, directory / "other")
        caplog.clear()
        with pytest.raises((ClientError, OSError)):
            await Machine(core).http("GET", "/v1/whoami", context=context)
    refusals = [each for each in caplog.messages if "is refused at TLS" in each]
    # aiohttp asks again by itself when a connection ends before its answer.
    assert refusals
    assert refusals[0].startswith("127.0.0.1 is refused at TLS")
    assert "not of this broker's CA" in refusals[0]


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_certificate_of_another_ca_is_closed_at_tls_and_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    caplog.set_level(logging.INFO)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_refuse_foreign(tmp_path, caplog))


async def test_one_who_speaks_no_tls_is_dropped_and_others_are_served(core: Core) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", core.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    assert (await Machine(core).http("GET", "/v1/ca.pem"))[0] == 200


async def test_ca_is_given_to_anybody(core: Core) -> None:
    assert await Machine(core).http("GET", "/v1/ca.pem") == (200, core.authority.pem)


async def test_tls_below_1_3_is_refused(core: Core) -> None:
    context = Machine(core).context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ClientError):
        await Machine(core).http("GET", "/v1/ca.pem", context=context)


async def test_certificate_of_the_server_is_for_its_addresses_too(core: Core) -> None:
    for name in (SERVER_NAME, "localhost", "127.0.0.1"):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", core.port, ssl=Machine(core).context(), server_hostname=name
        )
        writer.close()
        await writer.wait_closed()


async def test_server_certificate_is_renewed_while_links_stand(tmp_path: Path) -> None:
    clock = Clock()
    clock.offset = -61 * 86400
    async with running_core(tmp_path, clock=clock) as core:
        machine = await core.joined()
        before = await _served_certificate(core)
        async with machine.link() as end:
            clock.offset = 0
            assert core.agents_port.renew_certificate_if_due()
            assert not core.agents_port.renew_certificate_if_due()
            assert (await end.request("nothing", id=1))["error"]["code"] == "BAD_REQUEST"
            assert await _served_certificate(core) != before


async def _served_certificate(core: Core) -> bytes:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", core.port, ssl=Machine(core).context(), server_hostname=SERVER_NAME
    )
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_whoami_tells_a_known_certificate_who_it_is(core: Core) -> None:
    machine = await core.joined("garage")
    status, answer = await machine.http("GET", "/v1/whoami")
    assert status == 200
    assert abs(answer.pop("time_ms") / 1000 - core.clock()) < 60
    assert answer == {
        "hub": machine.hub,
        "name": "garage",
        "space": "default",
        "state": "active",
    }


async def test_whoami_without_a_certificate_tells_the_state_and_no_more(core: Core) -> None:
    machine = await core.joined()
    fingerprint = core.hubs.get("default", machine.hub).certificates[0].fingerprint
    stranger = Machine(core)

    async def state(query: str) -> Any:
        _, answer = await stranger.http("GET", f"/v1/whoami{query}")
        assert (answer["hub"], answer["name"], answer["space"]) == ("", "", "")
        return answer["state"]

    assert await state("") == "unknown"
    assert await state("?fingerprint=" + "0" * 64) == "unknown"
    assert await state(f"?fingerprint={fingerprint}") == "active"
    assert await state(f"?fingerprint={fingerprint.upper()}") == "active"
    core.clock.offset = 8 * 86400
    assert await state(f"?fingerprint={fingerprint}") == "expired"
    await core.hubs.revoke("default", machine.hub, by="test")
    assert await state(f"?fingerprint={fingerprint}") == "revoked"


@pytest.mark.parametrize("path", ["/v1/link", "/v1/renew"])
async def test_routes_of_hubs_ask_for_a_certificate(core: Core, path: str) -> None:
    method = "GET" if path == "/v1/link" else "POST"
    status, answer = await Machine(core).http(method, path, json={"csr": "x"})
    assert (status, answer["code"]) == (401, "UNAUTHORIZED")


async def test_certificate_of_ours_that_nobody_knows_is_refused(core: Core) -> None:
    """Such as one that was given after the backup that the broker was restored from."""
    machine = Machine(core)
    issued = core.authority.sign_agent(
        machine.key.public_key(), space="default", hub="h", now=core.clock()
    )
    machine.certificate = issued.pem
    status, answer = await machine.http("GET", "/v1/link")
    assert (status, answer["code"]) == (403, "REVOKED")
    assert (await machine.http("GET", "/v1/whoami"))[1]["state"] == "unknown"


async def test_link_that_asks_for_no_websocket_is_a_bad_request(core: Core) -> None:
    machine = await core.joined()
    status, answer = await machine.http("GET", "/v1/link")
    assert (status, answer["code"]) == (400, "BAD_REQUEST")


async def test_unknown_paths_and_methods_are_named(core: Core) -> None:
    machine = Machine(core)
    status, answer = await machine.http("GET", "/v1/nothing")
    assert (status, answer["code"]) == (404, "NOT_FOUND")
    status, answer = await machine.http("DELETE", "/v1/enroll")
    assert (status, answer["code"]) == (405, "METHOD_NOT_ALLOWED")


_HOSTILE_BODIES: list[bytes] = [
    b"",
    b"nonsense",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"{}",
    b'{"token_id": 1}',
    b'{"token_id": null, "secret": {}, "csr": []}',
    b'{"token_id": "a", "token_id": "b"}',
    b'{"token_id": NaN}',
    b'{"token_id": Infinity}',
    b"[" * 30_000,
    b'{"a":' * 10_000,
    json.dumps({"token_id": "\x00", "secret": "x", "csr": "y"}).encode(),
    json.dumps({"token_id": "../hub/x", "secret": "x", "csr": "y"}).encode(),
    json.dumps({"token_id": "a" * 5000, "secret": "x", "csr": "y"}).encode(),
    json.dumps({"token_id": "aaaaaaaa", "secret": "é", "csr": "-----BEGIN"}).encode(),
    json.dumps({"token_id": "\ud800", "secret": "x", "csr": "\ud800"}).encode(),
]


@pytest.mark.parametrize("body", _HOSTILE_BODIES, ids=range(len(_HOSTILE_BODIES)))
async def test_hostile_body_is_a_bad_request(core: Core, body: bytes) -> None:
    status, answer = await Machine(core).http("POST", "/v1/enroll", data=body)
    assert (status, answer["code"]) == (400, "BAD_REQUEST")


async def test_hostile_fields_beside_a_good_signing_request_are_refused(core: Core) -> None:
    token = await core.join_token()
    good = enrolment_body(token, signing_request(make_key()))
    hostile: dict[str, Any] = {
        "name": "No Name",
        "host_name": "x" * 300,
        "arch": 7,
        "os": ["Linux"],
        "python": "3\n11",
    }
    for field, value in hostile.items():
        status, answer = await Machine(core).http("POST", "/v1/enroll", json={**good, field: value})
        assert (field, status) == (field, 400), answer
    wrong = {"secret": "é" * 22, "token_id": "é"}
    for field, value in wrong.items():
        status, answer = await Machine(core).http("POST", "/v1/enroll", json={**good, field: value})
        assert (field, status) == (field, 401), answer
    assert core.hubs.list("default") == []


async def _declared(core: Core) -> tuple[int, Any]:
    return await Machine(core).http("POST", "/v1/enroll", data=b"x" * 100_000)


async def _chunked(core: Core) -> tuple[int, Any]:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    return await Machine(core).http("POST", "/v1/enroll", data=chunks())


@pytest.mark.parametrize("send", [_declared, _chunked])
async def test_huge_body_is_too_large(
    core: Core, send: Callable[[Core], Awaitable[tuple[int, Any]]]
) -> None:
    status, answer = await send(core)
    assert (status, answer["code"]) == (413, "TOO_LARGE")


async def test_body_cut_in_the_middle_harms_nothing(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", core.port, ssl=Machine(core).context(), server_hostname=SERVER_NAME
    )
    writer.write(b"POST /v1/enroll HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await Machine(core).http("GET", "/v1/ca.pem"))[0] == 200
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_connection_that_never_becomes_a_link_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sth_broker.tls_listener.UNLINKED_SECONDS", 0.2)
    async with running_core(tmp_path) as core:
        machine = await core.joined()
        async with machine.link() as end:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", core.port, ssl=Machine(core).context(), server_hostname=SERVER_NAME
            )
            writer.write(b"GET /v1/ca.pem HTTP/1.1\r\nX: ")
            async with asyncio.timeout(10):
                with pytest.raises(ConnectionError):
                    if not await reader.read():
                        raise ConnectionResetError
            writer.close()
            # The link is older than that, and stands.
            assert "error" in await end.request("nothing", id=1)


async def test_one_address_may_not_take_all_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sth_broker.tls_listener.MAX_UNLINKED_PER_ADDRESS", 3)
    async with running_core(tmp_path) as core:
        held = [await asyncio.open_connection("127.0.0.1", core.port) for _ in range(4)]
        async with asyncio.timeout(10):
            assert await held[3][0].read() == b""
        assert "too many connections at once" in caplog.text
        for _, writer in held:
            writer.close()
