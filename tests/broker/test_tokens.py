"""API tokens and join tokens: what they carry, who may use them, and that revoked means revoked."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from tests.support.broker_core import Clock

from sth_broker.audit import AuditLog, verify
from sth_broker.auth import Authenticator, Principal, require
from sth_broker.store.embedded import Store, open_store
from sth_broker.tokens import Scope, TokenService
from sth_protocol.errors import BadName, BadRequest, Forbidden, NotFound, Unauthorized
from sth_protocol.jointoken import parse_token


@dataclass
class Service:
    store: Store
    tokens: TokenService
    authenticator: Authenticator
    clock: Clock
    data: Path

    async def make(self, scope: Scope = "run", ttl: float = 60.0) -> str:
        return await self.tokens.make_api(space="default", scope=scope, ttl=ttl, by="test")

    async def check(self, token: str) -> Principal:
        return await self.authenticator.authenticate(f"Bearer {token}")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    clock = Clock()
    store = open_store(tmp_path)
    audit = AuditLog(tmp_path / "audit.ndjson")
    tokens = TokenService(store.records, audit, tmp_path / "pki", clock=clock)
    authenticator = Authenticator(store.records, tokens, clock=clock)
    yield Service(store, tokens, authenticator, clock, tmp_path)
    audit.close()
    await store.close()
    verify(tmp_path / "audit.ndjson")


async def test_api_token_names_its_bearer(service: Service) -> None:
    token = await service.make("admin")
    (shown,) = await service.tokens.list("default")
    assert await service.check(token) == Principal("default", "admin", shown.token_id)


async def test_api_token_holds_after_a_restart(service: Service) -> None:
    token = await service.make()
    audit = AuditLog(service.data / "other.ndjson")
    tokens = TokenService(service.store.records, audit, service.data / "pki")
    again = Authenticator(service.store.records, tokens)
    assert (await again.authenticate(f"Bearer {token}")).scope == "run"
    audit.close()


async def test_api_token_revoked_is_refused_at_once(service: Service) -> None:
    token = await service.make()
    principal = await service.check(token)
    await service.tokens.revoke("default", principal.token_id, by="test")
    with pytest.raises(Unauthorized, match="revoked"):
        await service.check(token)


async def test_api_token_expires(service: Service) -> None:
    token = await service.make(ttl=60)
    await service.check(token)
    service.clock.offset = 61
    with pytest.raises(Unauthorized, match="expired"):
        await service.check(token)


async def test_api_token_of_another_broker_is_refused(service: Service) -> None:
    token = await service.make()
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA")
    with pytest.raises(Unauthorized, match="not one of this broker"):
        await service.check(forged)


async def test_api_token_without_a_signature_is_refused(service: Service) -> None:
    claims = jwt.decode(await service.make(), options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", algorithm="none")
    with pytest.raises(Unauthorized):
        await service.check(unsigned)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer x.y.z",
        "Bearer " + "a" * 5000,
        "Bearer sthj1_abc",
        "Bearer \x00",
        "Bearer é.é.é",
    ],
)
async def test_header_that_carries_no_token_is_refused(
    service: Service, header: str | None
) -> None:
    with pytest.raises(Unauthorized):
        await service.authenticator.authenticate(header)


@pytest.mark.parametrize(
    ("has", "may"),
    [("read", {"read"}), ("run", {"read", "run"}), ("admin", {"read", "run", "admin"})],
)
def test_scope_includes_those_below_it(has: Scope, may: set[str]) -> None:
    principal = Principal("default", has, "t")
    wanted: tuple[Scope, ...] = ("read", "run", "admin")
    for each in wanted:
        if each in may:
            require(principal, each)
        else:
            with pytest.raises(Forbidden):
                require(principal, each)


async def test_join_token_carries_what_an_agent_needs(service: Service) -> None:
    text = await service.tokens.make_join(
        space="default", addresses=["a:1", "b:2"], pins=[b"p" * 32], ttl=60, by="test"
    )
    token = parse_token(text)
    assert (token.addresses, token.space, token.pins) == (("a:1", "b:2"), "default", (b"p" * 32,))
    (shown,) = await service.tokens.list("default")
    assert (shown.kind, shown.token_id, shown.uses) == ("join", token.public_id, 1)
    assert shown.expires_ms == token.expires * 1000


async def test_join_token_secret_is_stored_nowhere(service: Service) -> None:
    token = parse_token(
        await service.tokens.make_join(
            space="default", addresses=["a:1"], pins=[b"p" * 32], by="test"
        )
    )
    (record,) = await service.store.records.list("jointoken/")
    encoded = base64.urlsafe_b64encode(token.secret).decode().rstrip("=")
    assert token.secret.hex() not in str(record.value)
    assert encoded not in str(record.value) + (service.data / "audit.ndjson").read_text()
    assert encoded not in str(await service.tokens.list("default"))


async def test_join_token_for_ever_has_no_end(service: Service) -> None:
    text = await service.tokens.make_join(
        space="default", addresses=["a:1"], pins=[b"p" * 32], ttl=0, uses=0, by="test"
    )
    assert parse_token(text).expires == 0


async def test_tokens_of_another_space_are_not_there(service: Service) -> None:
    principal = await service.check(await service.make())
    assert await service.tokens.list("other") == []
    with pytest.raises(NotFound):
        await service.tokens.revoke("other", principal.token_id, by="test")
    await service.check(await service.make())


@pytest.mark.parametrize("token_id", ["", "nothing", "../hub/x", "a b", "é", "x" * 600])
async def test_revoking_an_unknown_token_is_not_found(service: Service, token_id: str) -> None:
    with pytest.raises(NotFound):
        await service.tokens.revoke("default", token_id, by="test")


@pytest.mark.parametrize("ttl", [0, -1, 1e12, float("nan")])
async def test_api_token_with_an_impossible_life_is_refused(service: Service, ttl: float) -> None:
    with pytest.raises(BadRequest):
        await service.make(ttl=ttl)


async def test_join_token_with_impossible_wishes_is_refused(service: Service) -> None:
    for wishes in ({"uses": -1}, {"uses": 10**9}, {"ttl": -1}, {"ttl": float("nan")}):
        with pytest.raises(BadRequest):
            await service.tokens.make_join(
                space="default",
                addresses=["a:1"],
                pins=[b"p" * 32],
                by="test",
                **wishes,
            )
    with pytest.raises(BadName):
        await service.tokens.make_join(
            space="default", addresses=["a:1"], pins=[b"p" * 32], name="No Name", by="test"
        )


async def test_making_and_revoking_is_audited(service: Service) -> None:
    principal = await service.check(await service.make())
    await service.tokens.revoke("default", principal.token_id, by="test")
    lines = (service.data / "audit.ndjson").read_text()
    assert lines.count('"token.create"') == 1
    assert lines.count('"token.revoke"') == 1
