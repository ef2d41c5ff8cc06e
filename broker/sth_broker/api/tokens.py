"""Tokens: those for machines that join, and those for the API. Their text is shown once."""

from collections.abc import Mapping
from typing import Any

import jwt
from aiohttp import web

from sth_broker.addresses import only_loopback
from sth_broker.api import bodies
from sth_broker.api.answers import answer
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.instance_record import timestamp
from sth_broker.tokens import API_LIFETIME_SECONDS, JOIN_LIFETIME_SECONDS, SCOPES, Kind, TokenInfo
from sth_protocol.errors import BadRequest, NotFound
from sth_protocol.jointoken import parse_token
from sth_protocol.model import Json

_ONLY_LOOPBACK = (
    "only loopback addresses are in it: no other machine can join with it; "
    "start the broker with --advertise HOST"
)


async def make_join_token(request: web.Request) -> web.Response:
    """`{ttlSeconds?, uses?, name?}`; a time or a number of uses of 0 has no end."""
    service, who = services(request), principal(request)
    body = await bodies.read_object(request)
    uses = bodies.take(body, "uses", int, default=1)
    text = await service.tokens.make_join(
        space=who.space,
        addresses=service.addresses,
        pins=[service.authority.pin],
        ttl=_lifetime(body, JOIN_LIFETIME_SECONDS),
        uses=uses,
        name=bodies.take(body, "name", str, default=""),
        by=who.token_id,
    )
    token = parse_token(text)
    return answer(
        {
            "id": token.public_id,
            "token": text,
            "command": f"sudo sth-agent join {text}",
            "expires": timestamp(token.expires * 1000) if token.expires else "",
            "uses": uses,
            "warning": _ONLY_LOOPBACK if only_loopback(service.addresses) else "",
        }
    )


async def make_api_token(request: web.Request) -> web.Response:
    """`{scope?, ttlSeconds?, name?}`; without a scope it may start and feed Instances."""
    service, who = services(request), principal(request)
    body = await bodies.read_object(request)
    scope = bodies.take(body, "scope", str, default="run")
    if scope not in SCOPES:
        raise BadRequest(f"'{scope[:40]}' is not a scope", hint="use read, run or admin")
    text = await service.tokens.make_api(
        space=who.space,
        scope=scope,
        name=bodies.take(body, "name", str, default=""),
        ttl=_lifetime(body, API_LIFETIME_SECONDS),
        by=who.token_id,
    )
    # Our own words a moment ago: there is nothing to verify.
    claims = jwt.decode(text, options={"verify_signature": False})
    return answer(
        {
            "id": claims["jti"],
            "token": text,
            "scope": scope,
            "expires": timestamp(claims["exp"] * 1000),
        }
    )


async def list_join_tokens(request: web.Request) -> web.Response:
    return await _list(request, "join")


async def list_api_tokens(request: web.Request) -> web.Response:
    return await _list(request, "api")


async def revoke_join_token(request: web.Request) -> web.Response:
    return await _revoke(request, "join")


async def revoke_api_token(request: web.Request) -> web.Response:
    return await _revoke(request, "api")


async def _list(request: web.Request, kind: Kind) -> web.Response:
    found = await services(request).tokens.list(principal(request).space)
    return answer([_shown(each) for each in found if each.kind == kind])


async def _revoke(request: web.Request, kind: Kind) -> web.Response:
    service, who, identity = services(request), principal(request), request.match_info["id"]
    known = await service.tokens.list(who.space)
    if not any(each.kind == kind and each.token_id == identity for each in known):
        raise NotFound(f"there is no {kind} token {identity[:40]}")
    # A token is revoked and audited altogether, whether or not the client waits for it.
    revoked = await service.background.shielded(
        service.tokens.revoke(who.space, identity, by=who.token_id)
    )
    return answer(_shown(revoked))


def _lifetime(body: Mapping[str, Any], default: float) -> float:
    seconds = body.get("ttlSeconds")
    if seconds is None:
        return default
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadRequest("ttlSeconds is not a number")
    return seconds


def _shown(token: TokenInfo) -> Json:
    def moment(milliseconds: int) -> str:
        return timestamp(milliseconds) if milliseconds else ""

    shown: Json = {
        "id": token.token_id,
        "name": token.name,
        "created": moment(token.created_ms),
        "expires": moment(token.expires_ms),
        "revoked": moment(token.revoked_ms),
    }
    if token.kind == "api":
        return {**shown, "scope": token.scope}
    return {
        **shown,
        "uses": token.uses,
        "used": token.used,
        "lastUsed": moment(token.last_used_ms),
        "lastHub": token.last_hub,
    }


ROUTES = (
    Route("POST", f"{BASE}/tokens/join", make_join_token, "admin"),
    Route("GET", f"{BASE}/tokens/join", list_join_tokens, "admin"),
    Route("DELETE", f"{BASE}/tokens/join/{{id}}", revoke_join_token, "admin"),
    Route("POST", f"{BASE}/tokens/api", make_api_token, "admin"),
    Route("GET", f"{BASE}/tokens/api", list_api_tokens, "admin"),
    Route("DELETE", f"{BASE}/tokens/api/{{id}}", revoke_api_token, "admin"),
)
