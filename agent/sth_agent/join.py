"""The flow of `sth-agent join`: from a token to an identity that has proved itself.

    token -> CA of the first address, pin checked -> key and CSR, stored -> enrolment over TLS that
    trusts this CA only -> a connection with the new certificate -> the identity is put in place

The secret leaves this machine only after the pin was checked, and the identity is written only
after the broker has accepted it.
"""

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sth_agent import clock, enrolment
from sth_agent.addresses import Address, address_list
from sth_agent.broker_http import CertificateRefused, ConnectionCut
from sth_agent.credentials import Identity, IdentityStore, Issued, trusting_context
from sth_agent.enrolment import Authority, Machine
from sth_agent.identity_child import describe_certificates, request_certificate
from sth_protocol.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    JoinTokenSpent,
    PinMismatch,
    SthError,
    TimedOut,
    Unreachable,
)
from sth_protocol.jointoken import JoinToken

Report = Callable[[str], None]
# A reply may be lost on a bad line; asked again with the same key, the broker answers the same.
ENROL_ATTEMPTS = 3
NOTICEABLE_SECONDS = 3.0
# OpenSSL: certificate not yet valid, certificate has expired.
_CLOCK_CODES = (9, 10)


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """`name`: the Hub's wished name, "" for one made of the host name."""

    name: str = ""
    replace: bool = False


@dataclass(frozen=True, slots=True)
class JoinResult:
    """`reachable`: the broker confirmed this identity just now."""

    identity: Identity
    already_joined: bool
    reachable: bool


def join(
    token: JoinToken,
    store: IdentityStore,
    machine: Machine,
    *,
    options: JoinOptions,
    report: Report,
) -> JoinResult:
    """Join this machine, or find that it has joined. `report` gets a line for each step."""
    name = options.name
    existing = store.current()
    if existing is not None:
        standing = _standing(existing, token, replace=options.replace)
        if standing is not None:
            return standing
        if _same_broker(existing, token):
            name = name or existing.name
            report(f"! The broker no longer accepts {existing.name}: joining again")
    addresses = address_list(token.addresses)
    if not addresses:
        raise BadRequest("the token names no address that can be read")
    address, authority = _checked_authority(addresses, token)
    report(f"✓ Broker identity matches the token (sha256:{token.pins[0].hex()[:8]}…)")
    _check_clock(authority.server_time, report)
    key_file = store.request_key(token.token_id.hex())
    csr = request_certificate(key_file)
    issued = _enrol(address, authority, token, csr, name=name, machine=machine)
    report(
        f"✓ Key created, certificate of hub {issued.name} valid to "
        f"{clock.day(issued.expires)} (renews itself)"
    )
    identity = store.add(key_file, issued)
    _prove(identity, address, store)
    store.promote(identity)
    return JoinResult(identity, already_joined=False, reachable=True)


def _same_broker(identity: Identity, token: JoinToken) -> bool:
    pins = {each.hex() for each in token.pins}
    return bool(pins.intersection(identity.pins)) and identity.space == token.space


def _standing(identity: Identity, token: JoinToken, *, replace: bool) -> JoinResult | None:
    """The result if this machine already belongs where the token leads; None if it has to join."""
    if replace:
        return None
    if not _same_broker(identity, token):
        raise Conflict(
            f"this machine belongs to Space {identity.space} at "
            f"{', '.join(identity.addresses) or 'another broker'}",
            hint="use --replace to leave it",
        )
    addresses = address_list(token.addresses, identity.addresses)
    try:
        answer = enrolment.whoami(addresses, identity)
    except (ConnectionCut, Forbidden):
        try:
            answer = enrolment.whoami(addresses, identity, anonymous=True)
        except (CertificateRefused, Forbidden):
            return None
        except (Unreachable, TimedOut):
            return JoinResult(identity, already_joined=True, reachable=False)
    except CertificateRefused:
        return None
    except (Unreachable, TimedOut):
        return JoinResult(identity, already_joined=True, reachable=False)
    if answer.state in ("active", "expired"):
        return JoinResult(identity, already_joined=True, reachable=True)
    return None


def _checked_authority(addresses: Sequence[Address], token: JoinToken) -> tuple[Address, Authority]:
    """The first address that shows the CA of the token. One that shows another does not end the
    search (a private address may be anybody's elsewhere), but names the failure."""
    failures: list[SthError] = []
    for address in addresses:
        try:
            return address, enrolment.fetch_authority(address, token.pins)
        except (PinMismatch, BadRequest, Unreachable, TimedOut) as error:
            failures.append(error)
    for kind in (PinMismatch, BadRequest):
        for failure in failures:
            if isinstance(failure, kind):
                raise failure
    hint = failures[0].hint
    if token.expires and token.expires < time.time():
        hint = f"{hint}; the token has expired, too ({clock.moment(token.expires)})".lstrip("; ")
    tried = "; ".join(each.message for each in failures)
    raise Unreachable(f"no address of the token leads to the broker: {tried}", hint=hint)


def _check_clock(server_time: float, report: Report) -> None:
    if not server_time:
        return
    ahead = time.time() - server_time
    if not clock.agrees(ahead, 0.0):
        raise _clock_error(server_time)
    if abs(ahead) >= NOTICEABLE_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        report(f"! Clock is {clock.duration(abs(ahead))} {side} the broker (ok)")


def _clock_error(server_time: float) -> Unreachable:
    right = f"; at the broker it is {clock.moment(server_time)}" if server_time else ""
    return Unreachable(
        f"the clock of this machine says {clock.moment(time.time())}{right}",
        hint="set the time (for example with systemd-timesyncd) and join again",
    )


def _enrol(
    address: Address,
    authority: Authority,
    token: JoinToken,
    csr: str,
    *,
    name: str,
    machine: Machine,
) -> Issued:
    try:
        context = trusting_context(authority.pem)
    except ssl.SSLError as error:
        raise PinMismatch(f"the CA of {address} cannot be used: {error.reason}") from None
    failure: SthError | None = None
    for _ in range(ENROL_ATTEMPTS):
        try:
            return enrolment.enroll(
                address, context, token=token, csr=csr, name=name, machine=machine
            )
        except CertificateRefused as error:
            raise _explained(error, address, authority) from None
        except JoinTokenSpent as error:
            raise _explained_spent(error, token) from None
        except (ConnectionCut, TimedOut) as error:
            failure = error
    assert failure is not None
    raise failure


def _explained(error: CertificateRefused, address: Address, authority: Authority) -> SthError:
    """Why the certificate was refused although the CA file matched the pin."""
    if error.verify_code in _CLOCK_CODES:
        return _clock_error(authority.server_time)
    shown = describe_certificates(ssl.DER_cert_to_PEM_cert(authority.peer_certificate))
    issuer = shown[0].issuer if shown else "an issuer that cannot be read"
    return PinMismatch(
        f"SECURITY: something between this machine and {address} ends TLS itself: the certificate "
        f"it showed was issued by {issuer}; the token was NOT sent",
        hint="the agents' port needs TCP pass-through at that proxy",
    )


def _explained_spent(error: JoinTokenSpent, token: JoinToken) -> JoinTokenSpent:
    now = time.time()
    if not token.expires or token.expires > now:
        return error
    return JoinTokenSpent(
        f"token {token.public_id} expired {clock.duration(now - token.expires)} ago "
        f"({clock.moment(token.expires)})",
        hint=f"make a new one: `sth token create join --space {token.space}`",
    )


def _prove(identity: Identity, address: Address, store: IdentityStore) -> None:
    try:
        answer = enrolment.whoami([address], identity)
        if answer.state != "active":
            raise Forbidden(f"the broker does not know its own certificate ({answer.state})")
    except SthError:
        store.discard(identity)
        raise


def read_token(
    argument: str | None, token_file: Path | None, variable: str, read_stdin: Callable[[], str]
) -> str:
    """The text of the token from wherever it was given; BadRequest if nowhere or twice."""
    if argument is not None and token_file is not None:
        raise BadRequest("give the token once: as an argument or with --token-file")
    if token_file is not None:
        try:
            return token_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequest(f"{token_file} cannot be read: {error}") from None
    if argument == "-":
        return read_stdin()
    text = argument or variable
    if not text:
        raise BadRequest(
            "no join token was given",
            hint="sth-agent join TOKEN, or - for stdin, --token-file FILE, $STH_JOIN_TOKEN",
        )
    return text
