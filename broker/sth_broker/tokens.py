"""Tokens: those that let people and programs use the API, and those that let machines join.

An API token is a signed JWT; its record says that it still holds. A join token's secret is known to
its bearer alone: the store has an HMAC of it under a key of the broker.
"""

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from sth_broker.audit import AuditLog
from sth_broker.join_record import JoinRecord
from sth_broker.private_files import make_private_directory, read_or_create, write_private
from sth_broker.store.interface import Json, Records
from sth_protocol import jointoken
from sth_protocol.errors import BadRequest, Conflict, Misconfigured, NotFound
from sth_protocol.ids import check_hub_name
from sth_protocol.jointoken import JoinToken

Scope = Literal["read", "run", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "run", "admin")
Kind = Literal["api", "join"]
KINDS: tuple[Kind, ...] = ("api", "join")

ALGORITHM = "EdDSA"
API_LIFETIME_SECONDS = 365 * 24 * 3600.0
JOIN_LIFETIME_SECONDS = 3600.0
MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 3600.0
MAX_USES = 1_000_000
_MAX_NAME = 128
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be shown of a token: never its secret. Times in ms since 1970, 0: never. `uses`: of
    a join token, 0: any number."""

    kind: Kind
    token_id: str
    space: str
    name: str
    created_ms: int
    expires_ms: int
    revoked_ms: int
    scope: str = ""
    uses: int = 0
    used: int = 0
    last_used_ms: int = 0
    last_hub: str = ""


class TokenService:
    """Makes, lists and takes back tokens. `directory`: where the broker's keys are."""

    def __init__(
        self,
        records: Records,
        audit: AuditLog,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        make_private_directory(directory)
        self._records = records
        self._audit = audit
        self._clock = clock
        self._secret_key = read_or_create(directory / "join-token.key", 32)
        self._signing_key = _signing_key(directory / "api-token.key")
        self.verifying_key = self._signing_key.public_key()
        self._revoked_listeners: list[Callable[[str], None]] = []

    async def make_api(
        self,
        *,
        space: str,
        scope: Scope,
        name: str = "",
        ttl: float = API_LIFETIME_SECONDS,
        by: str,
    ) -> str:
        """The text of a new API token. `ttl` in seconds; `by`: who asked for it, for the audit."""
        if scope not in SCOPES:
            raise BadRequest(f"'{scope}' is not a scope", hint="use read, run or admin")
        if not 0 < ttl <= MAX_LIFETIME_SECONDS:
            raise BadRequest("a token lives more than 0 seconds and at most 10 years")
        now = self._clock()
        token_id, _ = _new_id(9)
        value = {
            "space": space,
            "scope": scope,
            "name": _checked_name(name),
            "created_ms": int(now * 1000),
            "expires_ms": int((now + ttl) * 1000),
            "revoked_ms": 0,
        }
        await self._records.put(f"apitoken/{token_id}", value, expected=0)
        await self._audit.record(
            "token.create", space=space, by=by, subject=token_id, kind="api", scope=scope
        )
        claims = {
            "jti": token_id,
            "space": space,
            "scope": scope,
            "iat": int(now),
            "exp": int(now + ttl),
        }
        return jwt.encode(claims, self._signing_key, algorithm=ALGORITHM)

    async def make_join(
        self,
        *,
        space: str,
        addresses: Sequence[str],
        pins: Sequence[bytes],
        ttl: float = JOIN_LIFETIME_SECONDS,
        uses: int = 1,
        name: str = "",
        by: str,
    ) -> str:
        """The text of a new join token. `uses`: how many machines may join with it, 0: any number;
        `ttl` in seconds, 0: for ever; `name`: of the Hub that it makes, or the stem of several."""
        if not 0 <= ttl <= MAX_LIFETIME_SECONDS:
            raise BadRequest("a join token lives for at most 10 years", hint="0 means for ever")
        if not 0 <= uses <= MAX_USES:
            raise BadRequest(f"a join token has at most {MAX_USES} uses", hint="0: any number")
        now = self._clock()
        token_id, raw_id = _new_id(jointoken.ID_BYTES)
        secret = secrets.token_bytes(jointoken.SECRET_BYTES)
        expires = int(now + ttl) if ttl else 0
        record = JoinRecord(
            space=space,
            name=check_hub_name(name) if name else "",
            secret_hmac=self.secret_digest(secret),
            created_ms=int(now * 1000),
            expires_ms=expires * 1000,
            uses=uses,
        )
        await self._records.put(f"jointoken/{token_id}", record.to_value(), expected=0)
        await self._audit.record(
            "token.create", space=space, by=by, subject=token_id, kind="join", uses=uses
        )
        return jointoken.format_token(
            JoinToken(tuple(addresses), space, tuple(pins), raw_id, secret, expires)
        )

    async def list(self, space: str) -> list[TokenInfo]:
        """All tokens of a Space, the oldest first."""
        found = [
            _info(kind, record.key.partition("/")[2], record.value)
            for kind in KINDS
            for record in await self._records.list(f"{kind}token/")
            if record.value["space"] == space
        ]
        return sorted(found, key=lambda each: (each.created_ms, each.token_id))

    async def revoke(self, space: str, token_id: str, *, by: str) -> TokenInfo:
        """Take a token back, at once and for good. NotFound if the Space has none of that id."""
        key, kind = await self._find(space, token_id)
        while True:
            record = await self._records.get(key)
            if record is None:
                raise _no_such_token(token_id)
            value = record.value
            if not value["revoked_ms"]:
                value = {**value, "revoked_ms": int(self._clock() * 1000)}
                try:
                    await self._records.put(key, value, expected=record.revision)
                except Conflict:
                    # A machine joined with it meanwhile.
                    continue
            break
        for listener in self._revoked_listeners:
            listener(token_id)
        await self._audit.record("token.revoke", space=space, by=by, subject=token_id, kind=kind)
        return _info(kind, token_id, value)

    def on_revoked(self, listener: Callable[[str], None]) -> None:
        """`listener(token_id)` is called as soon as a token's record says that it is revoked."""
        self._revoked_listeners.append(listener)

    def secret_digest(self, secret: bytes) -> str:
        """What the store has of a join token's secret."""
        return hmac.new(self._secret_key, secret, hashlib.sha256).hexdigest()

    async def _find(self, space: str, token_id: str) -> tuple[str, Kind]:
        if not _ID.fullmatch(token_id):
            raise _no_such_token(token_id)
        for kind in KINDS:
            key = f"{kind}token/{token_id}"
            record = await self._records.get(key)
            if record is not None and record.value["space"] == space:
                return key, kind
        raise _no_such_token(token_id)


def is_token_id(text: str) -> bool:
    """Whether `text` can be the id of a token, and so part of a key of the store."""
    return _ID.fullmatch(text) is not None


def _no_such_token(token_id: str) -> NotFound:
    return NotFound(f"there is no token {token_id[:40]}", hint="`sth token ls` shows their ids")


def _info(kind: Kind, token_id: str, value: Json) -> TokenInfo:
    shown = TokenInfo.__dataclass_fields__
    return TokenInfo(
        kind=kind,
        token_id=token_id,
        **{name: each for name, each in value.items() if name in shown},
    )


def _checked_name(name: str) -> str:
    if len(name) > _MAX_NAME or not name.isprintable():
        raise BadRequest(f"a token's name has at most {_MAX_NAME} printable characters")
    return name


def _new_id(size: int) -> tuple[str, bytes]:
    """A random id as text and as bytes; it never begins with a hyphen, which commands would take
    for an option."""
    while True:
        raw = secrets.token_bytes(size)
        text = base64.urlsafe_b64encode(raw).decode()
        if is_token_id(text):
            return text, raw


def _signing_key(path: Path) -> ed25519.Ed25519PrivateKey:
    if not path.exists():
        made = ed25519.Ed25519PrivateKey.generate()
        write_private(
            path,
            made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    try:
        key: Any = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the key in {path} cannot be read: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise Misconfigured(f"the key in {path} is of another kind", hint="restore it")
    return key
