"""Who asks, and may they? Every route of the API goes through `authenticate` and `require`."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import jwt

from sth_broker.store.interface import Records
from sth_broker.tokens import ALGORITHM, SCOPES, Scope, TokenService, is_token_id
from sth_protocol.errors import Forbidden, Unauthorized

_MAX_HEADER = 4096
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a valid API token."""

    space: str
    scope: Scope
    token_id: str


class Authenticator:
    """Checks API tokens. A signature that was checked is remembered; a token that is revoked is
    forgotten at once."""

    def __init__(
        self, records: Records, tokens: TokenService, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._records = records
        self._key = tokens.verifying_key
        self._clock = clock
        # By the token's text, the least recently used first.
        self._known: OrderedDict[str, tuple[Principal, int]] = OrderedDict()
        self._revocations = 0
        tokens.on_revoked(self._forget)

    async def authenticate(self, authorization: str | None) -> Principal:
        """The bearer named by an Authorization header. Unauthorized, and why."""
        token = _bearer(authorization)
        known = self._known.get(token)
        if known is None:
            seen = self._revocations
            known = await self._check(token)
            if seen == self._revocations:
                self._remember(token, known)
        else:
            self._known.move_to_end(token)
        principal, expires = known
        if self._clock() >= expires:
            raise Unauthorized(f"the API token {principal.token_id} has expired")
        return principal

    async def _check(self, token: str) -> tuple[Principal, int]:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                # The times are checked by our own clock, on every request.
                options={
                    "require": ["jti", "space", "scope", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # PyJWT reads the token before it checks the signature, and stumbles over some.
            raise Unauthorized("the API token is not one of this broker") from None
        token_id, scope, expires = claims["jti"], claims["scope"], claims["exp"]
        if not isinstance(token_id, str) or not is_token_id(token_id) or scope not in SCOPES:
            raise Unauthorized("the API token is not one of this broker")
        record = await self._records.get(f"apitoken/{token_id}")
        if record is None or record.value["revoked_ms"]:
            raise Unauthorized(f"the API token {token_id} was revoked")
        return Principal(record.value["space"], scope, token_id), int(expires)

    def _remember(self, token: str, known: tuple[Principal, int]) -> None:
        self._known[token] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _forget(self, token_id: str) -> None:
        # A check that is under way may have read the record before it changed.
        self._revocations += 1
        for token in [t for t, (who, _) in self._known.items() if who.token_id == token_id]:
            del self._known[token]


def require(principal: Principal, scope: Scope) -> None:
    """Forbidden unless the token's scope includes `scope`: admin includes run, run includes
    read."""
    if SCOPES.index(principal.scope) < SCOPES.index(scope):
        raise Forbidden(
            f"the API token {principal.token_id} has scope {principal.scope}, this needs {scope}",
            hint=f"make one that may: `sth token create api --scope {scope}`",
        )


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise Unauthorized("no API token was sent")
    if len(authorization) > _MAX_HEADER:
        raise Unauthorized("the Authorization header is too long")
    kind, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token:
        raise Unauthorized("the Authorization header is not 'Bearer TOKEN'")
    if token.startswith("sthj1_"):
        raise Unauthorized("this is a join token, which joins machines and nothing else")
    return token
