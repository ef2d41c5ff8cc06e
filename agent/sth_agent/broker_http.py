"""Plain HTTPS to the broker's agents' port: enrolment, renewal and `whoami`, without an event loop.

Only the standard library: these requests are made a few times in the life of a machine, by `join`
and when a link cannot be had. Every failure is told apart, since the person who reads it can only
act on the right one.
"""

import email.utils
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sth_agent.addresses import SERVER_NAME, Address
from sth_protocol.errors import BadRequest, SthError, TimedOut, Unreachable, from_wire

TIMEOUT = 15.0
MAX_BODY = 1024 * 1024
Result = TypeVar("Result")


class ConnectionCut(Unreachable):
    """The peer ended the connection before it answered: a refusal of our certificate looks so."""


class CertificateRefused(Unreachable):
    """We refused the peer's certificate. `verify_code`: OpenSSL's X509_V_ERR number."""

    def __init__(self, message: str, *, verify_code: int) -> None:
        super().__init__(message)
        self.verify_code = verify_code


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `server_time`: its Date in seconds since 1970, 0 without one."""

    status: int
    body: bytes
    server_time: float = 0.0
    peer_certificate: bytes = field(default=b"", repr=False)

    def json(self) -> dict[str, Any]:
        """The object in the body, or the error that the broker answered."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BadRequest(
                f"the answer (HTTP {self.status}) is not one of a broker",
                hint="is that address the agents' port of a broker?",
            )
        if self.status >= 400:
            raise from_wire(value)
        return value


def request(
    address: Address,
    method: str,
    path: str,
    *,
    context: ssl.SSLContext,
    body: dict[str, Any] | None = None,
) -> Reply:
    """One request on a connection of its own. Unreachable, in one of its kinds, without an answer.

    `context` decides whether the peer is checked; the name asked for is always SERVER_NAME.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)
    with _connect(address) as plain, _wrap(plain, address, context) as stream:
        connection.sock = stream
        peer_certificate = stream.getpeercert(binary_form=True) or b""
        headers = {"Host": str(address), "Connection": "close"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            content = answer.read(MAX_BODY)
        except TimeoutError:
            raise TimedOut(f"{address} did not answer within {TIMEOUT:.0f} s") from None
        except (http.client.HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ConnectionCut(
                f"{address} ended the connection without an answer ({reason})"
            ) from None
        return Reply(
            answer.status,
            content,
            _seconds(answer.getheader("Date")),
            peer_certificate,
        )


def first_answer(
    addresses: Sequence[Address], operation: Callable[[Address], Result]
) -> tuple[Address, Result]:
    """The first address at which `operation` succeeds. An error that an answer carried, or a
    refused certificate, ends the search; Unreachable lists what each address did."""
    failures: list[SthError] = []
    for address in addresses:
        try:
            return address, operation(address)
        except CertificateRefused:
            raise
        except (Unreachable, TimedOut) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures and all(isinstance(each, ConnectionCut) for each in failures):
        raise failures[0]
    tried = "; ".join(each.message for each in failures) or "no address is known"
    raise Unreachable(f"the broker cannot be reached: {tried}")


def _connect(address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise Unreachable(
            f"the name '{address.host}' cannot be resolved: {reason}",
            hint="check the name, and DNS on this machine",
        ) from None
    attempts: list[str] = []
    for family, kind, protocol, _, target in found:
        candidate = socket.socket(family, kind, protocol)
        candidate.settimeout(TIMEOUT)
        try:
            candidate.connect(target)
        except TimeoutError:
            attempts.append(f"{target[0]} port {address.port}: no answer in {TIMEOUT:.0f} s")
        except OSError as error:
            attempts.append(f"{target[0]} port {address.port}: {error.strerror}")
        else:
            return candidate
        candidate.close()
    raise Unreachable(
        f"{address}: " + ", ".join(attempts),
        hint="is the broker running, and does a firewall let that port through?",
    )


def _wrap(plain: socket.socket, address: Address, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=SERVER_NAME)
    except ssl.SSLCertVerificationError as error:
        raise CertificateRefused(
            f"the certificate of {address} is not accepted: {error.verify_message}",
            verify_code=error.verify_code,
        ) from None
    except TimeoutError:
        raise TimedOut(f"{address} did not finish the TLS handshake") from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise Unreachable(
            f"{address} does not speak TLS 1.3 as a broker does: {reason}",
            hint="is that address the agents' port of a broker?",
        ) from None
    except OSError as error:
        raise ConnectionCut(f"{address} ended the TLS handshake ({error})") from None


def _seconds(date: str | None) -> float:
    if date is None:
        return 0.0
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0
