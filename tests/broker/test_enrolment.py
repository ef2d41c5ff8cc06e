"""Joining: what a token buys, how often, and what is refused without spending it."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.broker_core import (
    SPACE,
    Clock,
    Core,
    Machine,
    enrolment_body,
    make_key,
    running_core,
    signing_request,
)

from sth_broker.failure_limit import BURST, SECONDS_PER_FAILURE, FailureLimit
from sth_protocol.errors import NotFound


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as core:
        yield core


def _audited(core: Core) -> list[str]:
    return [json.loads(each)["action"] for each in core.audit_path.read_text().splitlines()]


async def test_token_makes_a_hub(core: Core) -> None:
    machine = Machine(core)
    status, answer = await machine.enroll(await core.join_token())
    assert status == 200
    assert set(answer) == {"hub", "name", "space", "certificate", "ca", "addresses", "expires"}
    assert (answer["space"], answer["name"]) == (SPACE, "pi-4")
    assert answer["ca"] == core.authority.pem
    assert answer["addresses"] == [f"127.0.0.1:{core.port}"]
    hub = core.hubs.get(SPACE, "pi-4")
    assert (hub.hub_id, hub.info.host_name, hub.info.arch) == (answer["hub"], "Pi 4", "aarch64")
    assert _audited(core) == ["token.create", "hub.join"]


async def test_token_used_up_is_gone_and_says_when(core: Core) -> None:
    token = await core.join_token()
    await Machine(core).enroll(token)
    status, answer = await Machine(core).enroll(token)
    assert (status, answer["code"]) == (410, "JOIN_TOKEN_SPENT")
    assert "could be used once and was" in answer["message"]
    assert token.public_id in answer["message"]
    assert len(core.hubs.list(SPACE)) == 1
    assert _audited(core)[-1] == "hub.join.refused"


async def test_token_expired_is_gone_and_says_when(core: Core) -> None:
    token = await core.join_token(ttl=60)
    core.clock.offset = 61
    status, answer = await Machine(core).enroll(token)
    assert (status, answer["code"]) == (410, "JOIN_TOKEN_SPENT")
    assert "expired at" in answer["message"]


async def test_token_revoked_is_gone(core: Core) -> None:
    token = await core.join_token()
    await core.tokens.revoke(SPACE, token.public_id, by="test")
    status, answer = await Machine(core).enroll(token)
    assert (status, answer["code"]) == (410, "JOIN_TOKEN_SPENT")
    assert "revoked at" in answer["message"]


async def test_token_for_many_lets_in_as_many(core: Core) -> None:
    token = await core.join_token(uses=3)
    answers = await asyncio.gather(*(Machine(core).enroll(token) for _ in range(5)))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 410, 410]
    assert [each.name for each in core.hubs.list(SPACE)] == ["pi-4", "pi-4-2", "pi-4-3"]


async def test_access_key_lets_in_any_number(core: Core) -> None:
    token = await core.join_token(uses=0, ttl=0)
    core.clock.offset = 3e8
    answers = [await Machine(core).enroll(token) for _ in range(4)]
    assert [status for status, _ in answers] == [200] * 4


async def test_same_key_gets_the_same_certificate_for_ten_minutes(core: Core) -> None:
    token = await core.join_token()
    machine = Machine(core)
    _, first = await machine.enroll(token)
    core.clock.offset = 599
    assert await machine.enroll(token) == (200, first)
    core.clock.offset = 601
    status, answer = await machine.enroll(token)
    assert (status, answer["code"]) == (410, "JOIN_TOKEN_SPENT")
    assert len(core.hubs.list(SPACE)) == 1


async def test_revoked_hub_gets_its_certificate_not_again(core: Core) -> None:
    token = await core.join_token()
    machine = Machine(core)
    await machine.enroll(token)
    await core.hubs.revoke(SPACE, machine.hub, by="test")
    status, answer = await machine.enroll(token)
    assert (status, answer["code"]) == (403, "REVOKED")


async def test_secret_that_is_wrong_is_unauthorized_and_spends_nothing(core: Core) -> None:
    token = await core.join_token()
    wrong = dataclasses.replace(token, secret=bytes(16))
    unknown = dataclasses.replace(token, token_id=b"nobody")
    answers = [await Machine(core).enroll(each) for each in (wrong, unknown)]
    assert [status for status, _ in answers] == [401, 401]
    assert answers[0] == answers[1]
    assert (await Machine(core).enroll(token))[0] == 200


async def test_guessing_secrets_is_slowed_down(core: Core) -> None:
    token = await core.join_token()
    wrong = dataclasses.replace(token, secret=bytes(16))
    answers = [await Machine(core).enroll(wrong) for _ in range(BURST + 1)]
    assert [status for status, _ in answers] == [401] * BURST + [429]
    core.clock.offset = SECONDS_PER_FAILURE * 2
    assert (await Machine(core).enroll(token))[0] == 200


def test_failure_limit_forgets_in_time() -> None:
    limit = FailureLimit()
    for _ in range(BURST):
        assert limit.seconds_to_wait("a", now=0.0) == 0
        limit.note_failure("a", now=0.0)
    assert 0 < limit.seconds_to_wait("a", now=0.0) <= SECONDS_PER_FAILURE
    assert limit.seconds_to_wait("b", now=0.0) == 0
    assert limit.seconds_to_wait("a", now=SECONDS_PER_FAILURE) == 0


def test_failure_limit_remembers_a_bounded_number() -> None:
    limit = FailureLimit()
    for number in range(10_000):
        limit.note_failure(str(number), now=0.0)
    assert len(limit) < 5000


async def test_wished_name_is_taken_or_refused_never_changed(core: Core) -> None:
    token = await core.join_token(uses=2)
    assert (await Machine(core).enroll(token, name="garage"))[1]["name"] == "garage"
    status, answer = await Machine(core).enroll(token, name="garage")
    assert (status, answer["code"]) == (409, "CONFLICT")
    assert (await Machine(core).enroll(token, name="roof"))[0] == 200


async def test_name_of_the_token_goes_before_the_machines_wish(core: Core) -> None:
    token = await core.join_token(name="porch")
    assert (await Machine(core).enroll(token, name="other"))[1]["name"] == "porch"


async def test_name_in_another_space_is_free(core: Core) -> None:
    await Machine(core).enroll(await core.join_token(), name="garage")
    other = await core.join_token(space="factory")
    assert (await Machine(core).enroll(other, name="garage"))[1]["space"] == "factory"


async def test_revoked_hub_joins_again_under_its_name(core: Core) -> None:
    first = await core.joined("garage")
    await core.hubs.revoke(SPACE, "garage", by="test")
    second = Machine(core)
    status, answer = await second.enroll(await core.join_token(), name="garage")
    assert (status, answer["name"]) == (200, "garage")
    assert core.hubs.get(SPACE, "garage").hub_id == second.hub != first.hub
    assert [each.name for each in core.hubs.list(SPACE)] == ["garage"]
    assert len(core.hubs.list(SPACE, revoked=True)) == 2


async def test_bad_signing_request_spends_nothing(core: Core) -> None:
    token = await core.join_token()
    status, answer = await Machine(core).enroll(token, csr="nonsense")
    assert (status, answer["code"]) == (400, "BAD_REQUEST")
    assert (await Machine(core).enroll(token))[0] == 200


async def test_hubs_are_known_after_a_restart(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        machine = await core.joined("garage")
    async with running_core(tmp_path) as core:
        assert core.hubs.get(SPACE, "garage").hub_id == machine.hub
        with pytest.raises(NotFound):
            core.hubs.get("other", machine.hub)


async def test_enrolments_at_the_same_time_by_one_key_are_one(core: Core) -> None:
    token = await core.join_token()
    key = make_key()
    body = enrolment_body(token, signing_request(key))
    machine = Machine(core, key)
    answers = await asyncio.gather(
        *(machine.http("POST", "/v1/enroll", json=body) for _ in range(4))
    )
    assert [status for status, _ in answers] == [200] * 4
    assert len({answer["certificate"] for _, answer in answers}) == 1


async def test_revoking_between_check_and_burn_wins(tmp_path: Path) -> None:
    """The record is compared and set: a token revoked while it is used lets nobody in."""
    async with running_core(tmp_path, clock=Clock()) as core:
        token = await core.join_token()
        enrolling = asyncio.gather(*(Machine(core).enroll(token) for _ in range(3)))
        await core.tokens.revoke(SPACE, token.public_id, by="test")
        statuses = sorted(status for status, _ in await enrolling)
        assert statuses.count(200) <= 1
        assert (await Machine(core).enroll(token))[0] == 410
