"""The life of a Hub's certificate: renewal, grace, replacement by a newer one, revocation."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.broker_core import (
    SPACE,
    AgentEnd,
    Core,
    Machine,
    close_on,
    make_key,
    running_core,
    signing_request,
)
from websockets.exceptions import InvalidStatus

from sth_protocol.errors import NotFound, SthError
from sth_protocol.events import Control

DAY = 86_400.0
LIFETIME = 7 * DAY
# What the issue promises for a live link.
CUT_SECONDS = 2.0


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as core:
        yield core


async def _renewed(machine: Machine, end: AgentEnd, *, id: int) -> Machine:
    """The same Hub with a new key and a certificate that it got over its link."""
    key = make_key()
    answer = await end.request("identity.renew", id=id, csr=signing_request(key))
    return _with(machine, key, answer["result"]["certificate"])


def _with(machine: Machine, key: ec.EllipticCurvePrivateKey, certificate: str) -> Machine:
    return Machine(
        machine.core,
        key=key,
        certificate=certificate,
        hub=machine.hub,
        boot=machine.boot,
        epoch=machine.epoch,
    )


async def _refusal(machine: Machine) -> tuple[int, str]:
    """Status and code with which the link is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with machine.link():
            pass
    response = caught.value.response
    answer: dict[str, Any] = json.loads(response.body or b"{}")
    return response.status_code, answer["code"]


async def test_old_certificate_stays_valid_until_the_new_one_has_connected(core: Core) -> None:
    old = await core.joined()
    async with old.link() as end:
        new = await _renewed(old, end, id=1)
    async with old.link() as end:
        assert end.welcome.hub == old.hub
    new.epoch = old.epoch
    async with new.link() as end:
        assert end.welcome.hub == old.hub
    assert await _refusal(old) == (403, "REVOKED")
    assert (await old.http("GET", "/v1/whoami"))[1]["state"] == "revoked"
    assert (await new.http("GET", "/v1/whoami"))[1]["state"] == "active"


async def test_lost_reply_of_a_renewal_harms_nothing(core: Core) -> None:
    machine = await core.joined()
    async with machine.link() as end:
        await _renewed(machine, end, id=1)
        second = await _renewed(machine, end, id=2)
    second.epoch = machine.epoch
    async with second.link():
        pass
    assert len(core.hubs.get(SPACE, machine.hub).certificates) == 3


async def test_asking_for_certificates_again_and_again_does_not_grow_the_record(
    core: Core,
) -> None:
    machine = await core.joined()
    async with machine.link() as end:
        for number in range(1, 40):
            await end.request("identity.renew", id=number, csr=signing_request(make_key()))
    certificates = core.hubs.get(SPACE, machine.hub).certificates
    assert len(certificates) == 16
    assert certificates[0].state == "current"
    assert (await machine.http("GET", "/v1/whoami"))[1]["state"] == "active"


async def test_renewal_with_a_bad_request_is_an_error_and_the_link_lives(core: Core) -> None:
    machine = await core.joined()
    async with machine.link() as end:
        wrong: list[dict[str, object]] = [{}, {"csr": 1}, {"csr": "nonsense"}]
        for number, fields in enumerate(wrong, 1):
            answer = await end.request("identity.renew", id=number, **fields)
            assert answer["error"]["code"] == "BAD_REQUEST"
        await _renewed(machine, end, id=9)


async def test_expired_certificate_may_only_renew_itself(core: Core) -> None:
    machine = await core.joined()
    core.clock.offset = LIFETIME + 1
    assert await _refusal(machine) == (403, "CERTIFICATE_EXPIRED")
    assert (await machine.http("GET", "/v1/whoami"))[1]["state"] == "expired"
    key = make_key()
    status, answer = await machine.http("POST", "/v1/renew", json={"csr": signing_request(key)})
    assert (status, set(answer)) == (200, {"certificate", "ca"})
    renewed = _with(machine, key, answer["certificate"])
    async with renewed.link() as end:
        assert end.welcome.hub == machine.hub


async def test_grace_of_the_expired_ends_after_thirty_days(core: Core) -> None:
    machine = await core.joined()
    body = {"csr": signing_request(make_key())}
    core.clock.offset = LIFETIME + 30 * DAY - 60
    assert (await machine.http("POST", "/v1/renew", json=body))[0] == 200
    core.clock.offset = LIFETIME + 30 * DAY + 60
    status, answer = await machine.http("POST", "/v1/renew", json=body)
    assert (status, answer["code"]) == (403, "CERTIFICATE_EXPIRED")
    assert "sth token create join" in answer["hint"]


async def test_certificates_that_live_seconds_really_expire(tmp_path: Path) -> None:
    """With the clocks of OpenSSL and of the broker as they are."""
    async with running_core(tmp_path, lifetime=1.0) as core:
        machine = await core.joined()
        async with asyncio.timeout(20):
            while (await machine.http("GET", "/v1/whoami"))[1]["state"] == "active":
                pass
        assert await _refusal(machine) == (403, "CERTIFICATE_EXPIRED")
        key = make_key()
        status, answer = await machine.http("POST", "/v1/renew", json={"csr": signing_request(key)})
        assert (status, set(answer)) == (200, {"certificate", "ca"})


async def test_link_stands_when_its_certificate_expires(core: Core) -> None:
    machine = await core.joined()
    async with machine.link() as end:
        core.clock.offset = LIFETIME + 1
        renewed = await _renewed(machine, end, id=1)
    renewed.epoch = machine.epoch
    async with renewed.link():
        pass


async def test_revoking_cuts_a_live_link_and_refuses_from_then_on(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        machine = await core.joined("garage")
        async with machine.link() as end:
            async with asyncio.timeout(CUT_SECONDS):
                await core.hubs.revoke(SPACE, "garage", by="test")
                notice = await end.next_event(Control)
                closed = await close_on(end.websocket)
        assert notice.message == {"type": "hub.revoked"}
        assert closed.code == "REVOKED"
        assert core.gateway.hub(machine.hub) is None
        assert await _refusal(machine) == (403, "REVOKED")
        assert (await machine.http("GET", "/v1/whoami"))[1]["state"] == "revoked"
        assert '"hub.revoke"' in core.audit_path.read_text()
    async with running_core(tmp_path) as core:
        machine.core = core
        assert await _refusal(machine) == (403, "REVOKED")
        core.clock.offset = LIFETIME + 1
        body = {"csr": signing_request(make_key())}
        status, answer = await machine.http("POST", "/v1/renew", json=body)
        assert (status, answer["code"]) == (403, "REVOKED")


async def test_revoking_ends_what_waits_for_the_hub(core: Core) -> None:
    machine = await core.joined()
    async with machine.link() as end:
        link = core.gateway.hub(machine.hub)
        assert link is not None
        asked = asyncio.ensure_future(link.request("instance.health", instance="i"))
        await end.next_event(Control)
        await core.hubs.revoke(SPACE, machine.hub, by="test")
        with pytest.raises(SthError, match="revoked"):
            await asked


async def test_revoked_between_upgrade_and_hello_is_refused(core: Core) -> None:
    machine = await core.joined()
    async with machine.websocket() as websocket:
        await core.hubs.revoke(SPACE, machine.hub, by="test")
        with pytest.raises(AssertionError) as caught:
            await machine.greet(websocket)
    assert "REVOKED" in str(caught.value)


async def test_revoking_twice_and_of_others_is_not_found(core: Core) -> None:
    machine = await core.joined("garage")
    with pytest.raises(NotFound):
        await core.hubs.revoke("other", machine.hub, by="test")
    await core.hubs.revoke(SPACE, "garage", by="test")
    with pytest.raises(NotFound):
        await core.hubs.revoke(SPACE, "garage", by="test")
    again = await core.hubs.revoke(SPACE, machine.hub, by="test")
    assert again.revoked


async def test_seen_is_stored_when_a_hub_goes(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        machine = await core.joined()
        async with machine.link():
            core.clock.offset = 100
    async with running_core(tmp_path) as core:
        hub = core.hubs.get(SPACE, machine.hub)
        assert hub.last_seen_ms - hub.created_ms > 99_000
        assert hub.info.host_name == "Pi 4"
        assert core.hubs.link(machine.hub) is None
