"""The routes of the broker's agents' port as functions: CA, enroll, whoami, renew."""

import base64
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sth_agent import broker_http
from sth_agent.addresses import Address
from sth_agent.broker_http import Reply
from sth_agent.credentials import Identity, Issued
from sth_agent.identity_child import describe_certificates, request_certificate
from sth_protocol.errors import BadRequest, PinMismatch
from sth_protocol.jointoken import JoinToken


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says of itself when it joins."""

    host_name: str
    arch: str
    os: str
    python: str
    libc: str
    agent_version: str


@dataclass(frozen=True, slots=True)
class Whoami:
    """The broker's view of this identity: active, expired, revoked or unknown."""

    state: str
    hub: str
    name: str
    space: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A broker's CA whose pin was checked. `server_time`: the broker's clock, 0 if not told;
    `peer_certificate`: what the TLS peer showed, which need not be the broker's own."""

    pem: str
    pins: tuple[str, ...]
    server_time: float
    peer_certificate: bytes


def fetch_authority(address: Address, pins: Sequence[bytes]) -> Authority:
    """The CA of this address, checked against the token's pins: PinMismatch if it is another.
    Nothing secret is sent: the peer of this connection is not checked."""
    reply = _ask_authority(address)
    if reply.status != 200:
        raise BadRequest(
            f"{address} answered HTTP {reply.status} when asked for its CA",
            hint="is that address the agents' port of a broker?",
        )
    pem = reply.body.decode(errors="replace")
    found = describe_certificates(pem)
    wanted = {each.hex() for each in pins}
    if not any(each.pin in wanted for each in found):
        issuer = found[0].issuer if found else "unreadable"
        raise PinMismatch(
            f"SECURITY: {address} presented a different CA ({issuer}) than the token names; "
            "the token was NOT sent",
            hint="check the address; if a TLS proxy is in front, the agents' port needs TCP "
            "pass-through",
        )
    pins_found = tuple(each.pin for each in found)
    return Authority(pem, pins_found, reply.server_time, reply.peer_certificate)


def _ask_authority(address: Address) -> Reply:
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The pin is checked by our own code, on what this connection brings; nothing is sent on it.
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    return broker_http.request(address, "GET", "/v1/ca.pem", context=unchecked)


def enroll(
    address: Address,
    context: ssl.SSLContext,
    *,
    token: JoinToken,
    csr: str,
    name: str,
    machine: Machine,
) -> Issued:
    """Spend the token for a certificate. Asked again with the same key, the answer is the same."""
    body = {
        "token_id": base64.urlsafe_b64encode(token.token_id).decode(),
        "secret": base64.urlsafe_b64encode(token.secret).decode(),
        "csr": csr,
        "name": name,
        **asdict(machine),
    }
    answer = broker_http.request(address, "POST", "/v1/enroll", context=context, body=body).json()
    addresses = answer.get("addresses") or []
    return issued_from(
        answer,
        hub=_text(answer, "hub"),
        name=_text(answer, "name"),
        space=_text(answer, "space"),
        addresses=tuple(str(each) for each in addresses),
    )


def renew(addresses: Sequence[Address], identity: Identity, key_file: Path) -> Issued:
    """A new certificate for a new key, by proof of the old one, which may have expired."""
    body = {"csr": request_certificate(key_file)}
    context = identity.tls_context()

    def ask(address: Address) -> dict[str, Any]:
        return broker_http.request(address, "POST", "/v1/renew", context=context, body=body).json()

    _, answer = broker_http.first_answer(addresses, ask)
    return renewed(identity, answer)


def renewed(identity: Identity, answer: dict[str, Any]) -> Issued:
    """What `{certificate, ca}` grants to a Hub that keeps its name."""
    return issued_from(
        answer,
        hub=identity.hub,
        name=identity.name,
        space=identity.space,
        addresses=identity.addresses,
    )


def issued_from(
    answer: dict[str, Any], *, hub: str, name: str, space: str, addresses: tuple[str, ...]
) -> Issued:
    """The certificates of an answer; BadRequest if they cannot be read."""
    certificate, authority = _text(answer, "certificate"), _text(answer, "ca")
    facts, authorities = describe_certificates(certificate), describe_certificates(authority)
    if not facts or not authorities:
        raise BadRequest("the broker answered with certificates that cannot be read")
    return Issued(
        hub=hub,
        name=name,
        space=space,
        addresses=addresses,
        certificate=certificate,
        authority=authority,
        pins=tuple(each.pin for each in authorities),
        fingerprint=facts[0].fingerprint,
        # Certificates are backdated; half life counts from the day they were granted.
        issued=max(facts[0].not_before, min(time.time(), facts[0].not_after)),
        expires=facts[0].not_after,
    )


def whoami(addresses: Sequence[Address], identity: Identity, *, anonymous: bool = False) -> Whoami:
    """What the broker says of this identity. `anonymous`: asked without the certificate, which
    works even where the certificate is refused by TLS itself."""
    query = "?" + urlencode({"fingerprint": identity.fingerprint}) if anonymous else ""
    context = identity.anonymous_context() if anonymous else identity.tls_context()

    def ask(address: Address) -> dict[str, Any]:
        return broker_http.request(address, "GET", f"/v1/whoami{query}", context=context).json()

    _, answer = broker_http.first_answer(addresses, ask)
    return Whoami(
        state=_text(answer, "state"),
        hub=str(answer.get("hub") or ""),
        name=str(answer.get("name") or ""),
        space=str(answer.get("space") or ""),
    )


def _text(answer: dict[str, Any], key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"the broker's answer has no '{key}'")
    return value
