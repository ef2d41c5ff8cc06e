"""How a machine becomes a Hub, and how a Hub gets its next certificate.

A join token is burnt by one write: the record that says "used" holds the answer too. So a broker
that dies between the burn and the reply loses nothing: the same key, asking again within ten
minutes, gets the same certificate, and another key gets none.
"""

import asyncio
import base64
import binascii
import dataclasses
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sth_broker.audit import AuditLog
from sth_broker.failure_limit import FailureLimit
from sth_broker.hub_record import Hub
from sth_broker.hubs import HubRegistry
from sth_broker.join_record import JoinRecord, Use
from sth_broker.pki import (
    AGENT_LIFETIME_SECONDS,
    CertificateAuthority,
    IssuedCertificate,
    PublicKey,
    public_key_digest,
    read_signing_request,
)
from sth_broker.store.interface import Record, Records
from sth_broker.tokens import TokenService, is_token_id
from sth_protocol.errors import (
    Conflict,
    JoinTokenSpent,
    NotFound,
    RateLimited,
    Unauthorized,
)
from sth_protocol.model import HubInfo

logger = logging.getLogger(__name__)

_MAX_SECRET_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """What a machine sends. `name`: wished, or empty for one made of its host name."""

    token_id: str
    secret: str
    csr: str
    name: str
    info: HubInfo


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What it is answered. PEM; `expires`: seconds since 1970 of the certificate's end."""

    hub: str
    name: str
    space: str
    certificate: str
    ca: str
    addresses: tuple[str, ...]
    expires: int


class Enrolment:
    """`addresses`: where agents find this broker; `lifetime` of certificates in seconds."""

    def __init__(
        self,
        *,
        records: Records,
        tokens: TokenService,
        hubs: HubRegistry,
        audit: AuditLog,
        authority: CertificateAuthority,
        addresses: Sequence[str],
        lifetime: float = AGENT_LIFETIME_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._tokens = tokens
        self._hubs = hubs
        self._audit = audit
        self._authority = authority
        self._addresses = tuple(addresses)
        self._lifetime = lifetime
        self._clock = clock
        self._failures = FailureLimit()
        # One at a time: two requests with one token are told apart by their order.
        self._lock = asyncio.Lock()

    async def enroll(self, request: EnrolRequest, *, remote: str) -> Enrolled:
        """Let a machine in. Unauthorized, RateLimited, JoinTokenSpent, BadRequest for a bad signing
        request, Conflict for a name in use; none of these spends the token."""
        key = read_signing_request(request.csr)
        async with self._lock:
            while True:
                record = await self._checked_token(request, remote)
                try:
                    return await self._enroll(request, record, key, remote)
                except _Overtaken:
                    # The token was revoked meanwhile, perhaps.
                    continue

    async def renew(self, hub_id: str, csr: str, *, by: str) -> IssuedCertificate:
        """One more certificate for a Hub that has shown who it is. `by`: for the audit."""
        key = read_signing_request(csr)
        hub = self._hubs.find(hub_id)
        if hub is None:
            raise NotFound(f"there is no Hub {hub_id}")
        issued = self._authority.sign_agent(
            key, space=hub.space, hub=hub_id, now=self._clock(), lifetime=self._lifetime
        )
        await self._hubs.add_certificate(hub_id, issued)
        await self._audit.record(
            "hub.renew", space=hub.space, by=by, subject=hub_id, serial=issued.serial
        )
        return issued

    async def _checked_token(self, request: EnrolRequest, remote: str) -> Record:
        """The token's record, if the secret is its own. An id that does not exist is answered, and
        takes as long, as a wrong secret."""
        now = self._clock()
        wait = self._failures.seconds_to_wait(remote, now=now)
        if wait:
            raise RateLimited(f"too many wrong join tokens; try again in {wait:.0f} s")
        record = None
        if is_token_id(request.token_id):
            record = await self._records.get(f"jointoken/{request.token_id}")
        expected = record.value["secret_hmac"] if record is not None else ""
        given = self._tokens.secret_digest(_decode_secret(request.secret))
        if not hmac.compare_digest(given, expected) or record is None:
            self._failures.note_failure(remote, now=now)
            logger.warning("%s asks to join with a token that is not ours", remote)
            raise Unauthorized(
                "this broker knows no such join token",
                hint="copy it again, whole; `sth token create join` makes a new one",
            )
        return record

    async def _enroll(
        self, request: EnrolRequest, record: Record, key: PublicKey, remote: str
    ) -> Enrolled:
        token = JoinRecord.from_value(record.value)
        now_ms = int(self._clock() * 1000)
        use = token.use_of(public_key_digest(key).hex(), now_ms=now_ms)
        if use is None or token.revoked_ms:
            await self._check_usable(token, request.token_id, now_ms, remote)
        if use is not None:
            return await self._answer_again(request, token, use, remote)
        wished = token.name if token.name and token.uses == 1 else request.name
        stem = token.name or request.info.host_name
        with self._hubs.reserve_name(token.space, wished, stem=stem) as name:
            use = self._sign(token.space, key, now_ms)
            await self._burn(record, token.with_use(use))
            return await self._add(request, token, use, name, remote)

    async def _check_usable(
        self, token: JoinRecord, token_id: str, now_ms: int, remote: str
    ) -> None:
        try:
            token.check_usable(token_id, now_ms=now_ms)
        except JoinTokenSpent as error:
            logger.warning("%s: %s", remote, error.message)
            await self._audit.record(
                "hub.join.refused",
                space=token.space,
                by=remote,
                subject=token_id,
                reason=error.message,
            )
            raise

    def _sign(self, space: str, key: PublicKey, now_ms: int) -> Use:
        hub_id = str(uuid.uuid4())
        issued = self._authority.sign_agent(
            key, space=space, hub=hub_id, now=self._clock(), lifetime=self._lifetime
        )
        return Use(
            key=issued.key,
            hub_id=hub_id,
            certificate=issued.pem,
            fingerprint=issued.fingerprint,
            serial=issued.serial,
            expires=issued.expires,
            at_ms=now_ms,
        )

    async def _burn(self, record: Record, used: JoinRecord) -> None:
        try:
            await self._records.put(record.key, used.to_value(), expected=record.revision)
        except Conflict:
            raise _Overtaken from None

    async def _add(
        self, request: EnrolRequest, token: JoinRecord, use: Use, name: str, remote: str
    ) -> Enrolled:
        issued = IssuedCertificate(
            pem=use.certificate,
            fingerprint=use.fingerprint,
            serial=use.serial,
            key=use.key,
            expires=use.expires,
        )
        info = dataclasses.replace(request.info, name=name)
        await self._audit.record(
            "hub.join",
            space=token.space,
            by=remote,
            subject=use.hub_id,
            name=name,
            token=request.token_id,
            serial=use.serial,
        )
        hub = await self._hubs.add(
            hub_id=use.hub_id, space=token.space, name=name, info=info, issued=issued
        )
        logger.info("Hub %s has joined Space %s from %s", name, token.space, remote)
        return self._answer(hub, use)

    async def _answer_again(
        self, request: EnrolRequest, token: JoinRecord, use: Use, remote: str
    ) -> Enrolled:
        hub = self._hubs.find(use.hub_id)
        if hub is not None:
            hub.check(use.fingerprint, now=self._clock())
            logger.info("%s asks again for the certificate of Hub %s", remote, hub.name)
            return self._answer(hub, use)
        # The broker died between the burn and the Hub's record.
        stem = request.name or token.name or request.info.host_name
        with self._hubs.reserve_name(token.space, "", stem=stem) as name:
            return await self._add(request, token, use, name, remote)

    def _answer(self, hub: Hub, use: Use) -> Enrolled:
        return Enrolled(
            hub=hub.hub_id,
            name=hub.name,
            space=hub.space,
            certificate=use.certificate,
            ca=self._authority.pem,
            addresses=self._addresses,
            expires=use.expires,
        )


class _Overtaken(Exception):
    """The token's record changed while it was being used."""


def _decode_secret(text: str) -> bytes:
    if len(text) > _MAX_SECRET_CHARACTERS:
        return b""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
