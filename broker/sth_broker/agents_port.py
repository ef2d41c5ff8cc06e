"""The agents' port: CA, enrolment, renewal, whoami, and the link."""

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from sth_broker.enrolment import Enrolment, EnrolRequest
from sth_broker.gateway import Gateway, HubLink, Peer
from sth_broker.hub_record import Hub
from sth_broker.hubs import HubRegistry
from sth_broker.pki import CertificateAuthority, IssuedCertificate, ServerCertificate
from sth_broker.tls_listener import TlsListener, server_context
from sth_protocol.errors import (
    BadRequest,
    BodyCut,
    Internal,
    MethodNotAllowed,
    NotFound,
    Revoked,
    SthError,
    TooLarge,
    Unauthorized,
)
from sth_protocol.handshake import Hello
from sth_protocol.model import HubInfo, Json, to_map

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
MAX_WORD = 256
RENEWAL_CHECK_SECONDS = 3600.0


class AgentsPort:
    """`names`: host names and addresses for the server's certificate, beside the fixed name;
    `directory`: where the broker's keys are."""

    def __init__(
        self,
        *,
        authority: CertificateAuthority,
        directory: Path,
        names: Sequence[str],
        hubs: HubRegistry,
        enrolment: Enrolment,
        gateway: Gateway,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._certificate = ServerCertificate(authority, directory, names)
        self._hubs = hubs
        self._enrolment = enrolment
        self._gateway = gateway
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._listener: TlsListener | None = None
        self._context: ssl.SSLContext | None = None
        self._renewing: asyncio.Task[None] | None = None
        gateway.on_request("identity.renew", self._renew_over_link)

    async def start(self, listening: socket.socket) -> None:
        """Serve on a bound socket, which is closed at the end."""
        self._certificate.ensure(now=self._clock())
        self._context = server_context(
            self._certificate.certificate_path, self._certificate.key_path, self._authority.pem
        )
        application = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
        application.router.add_get("/v1/ca.pem", self._ca)
        application.router.add_get("/v1/whoami", self._whoami)
        application.router.add_post("/v1/enroll", self._enroll)
        application.router.add_post("/v1/renew", self._renew)
        application.router.add_get("/v1/link", self._link)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._listener = TlsListener(server, self._context)
        self._listener.start(listening)
        self._renewing = asyncio.create_task(self._renew_certificate(), name="server certificate")

    async def close(self) -> None:
        """Stop serving. Close the gateway first: it says goodbye to the agents."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        if self._listener is not None:
            await self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _renew_certificate(self) -> None:
        """New handshakes use the new certificate; links that stand are not touched."""
        while True:
            await asyncio.sleep(RENEWAL_CHECK_SECONDS)
            self.renew_certificate_if_due()

    def renew_certificate_if_due(self) -> bool:
        """Make and use a new server certificate if the present one is near its end."""
        assert self._context is not None
        try:
            made = self._certificate.ensure(now=self._clock())
            if made:
                self._context.load_cert_chain(
                    self._certificate.certificate_path, self._certificate.key_path
                )
        except OSError as error:
            logger.error("the server certificate cannot be renewed: %s", error)
            return False
        return made

    # -- routes --------------------------------------------------------------------------------

    async def _ca(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._authority.pem, content_type="application/x-pem-file")

    async def _whoami(self, request: web.Request) -> web.Response:
        shown = _fingerprint(request)
        hub = self._hubs.by_certificate(shown) if shown is not None else None
        asked = shown if shown is not None else request.query.get("fingerprint", "").lower()
        return web.json_response(
            {
                "hub": hub.hub_id if hub is not None else "",
                "name": hub.name if hub is not None else "",
                "space": hub.space if hub is not None else "",
                "state": self._hubs.judge(asked),
                "time_ms": int(self._clock() * 1000),
            }
        )

    async def _enroll(self, request: web.Request) -> web.Response:
        body = await _read_object(request)
        name = _word(body, "name", required=False)
        asked = EnrolRequest(
            token_id=_word(body, "token_id"),
            secret=_word(body, "secret"),
            csr=_text(body, "csr"),
            name=name,
            info=HubInfo(
                name=name,
                agent_version=_word(body, "agent_version", required=False),
                arch=_word(body, "arch", required=False),
                os=_word(body, "os", required=False),
                python=_word(body, "python", required=False),
                libc=_word(body, "libc", required=False),
                host_name=_word(body, "host_name", required=False),
            ),
        )
        enrolled = await self._enrolment.enroll(asked, remote=request.remote or "unknown")
        return web.json_response(to_map(enrolled))

    async def _renew(self, request: web.Request) -> web.Response:
        hub, fingerprint = self._presented(request)
        hub.check(fingerprint, now=self._clock(), renewing=True)
        body = await _read_object(request)
        issued = await self._enrolment.renew(
            hub.hub_id, _text(body, "csr"), by=request.remote or "unknown"
        )
        return web.json_response(self._renewed(issued))

    async def _renew_over_link(self, link: HubLink, fields: Json) -> Json:
        issued = await self._enrolment.renew(link.hub_id, _text(fields, "csr"), by=link.hub_id)
        return self._renewed(issued)

    def _renewed(self, issued: IssuedCertificate) -> Json:
        return {"certificate": issued.pem, "ca": self._authority.pem}

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        hub, fingerprint = self._presented(request)
        hub.check(fingerprint, now=self._clock())
        assert self._listener is not None
        self._listener.adopt(request.protocol)

        async def admit(hello: Hello) -> None:
            await self._hubs.admit(hub.hub_id, fingerprint, hello.hub)

        peer = Peer(hub_id=hub.hub_id, space=hub.space, name=hub.name)
        return await self._gateway.serve(request, peer, admit)

    def _presented(self, request: web.Request) -> tuple[Hub, str]:
        """The Hub whose certificate was shown in the handshake, which has proved its key."""
        fingerprint = _fingerprint(request)
        if fingerprint is None:
            raise Unauthorized(
                "this needs the client certificate of a Hub",
                hint="join this machine: `sth-agent join TOKEN`",
            )
        hub = self._hubs.by_certificate(fingerprint)
        if hub is None:
            raise Revoked("this broker does not know that client certificate")
        return hub, fingerprint


def _fingerprint(request: web.Request) -> str | None:
    """SHA-256 of the client certificate's DER, hex; None if none was sent."""
    transport = request.transport
    shown = transport.get_extra_info("ssl_object") if transport is not None else None
    encoded = shown.getpeercert(binary_form=True) if shown is not None else None
    return hashlib.sha256(encoded).hexdigest() if encoded else None


async def _read_object(request: web.Request) -> Json:
    """The JSON object of a body of at most 64 KiB. TooLarge, BadRequest."""
    if (request.content_length or 0) > MAX_BODY:
        raise TooLarge(f"the body has more than {MAX_BODY} bytes")
    body = await request.read()
    try:
        value = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"'{name}' is missing, or not a text")
    return value


def _word(body: Json, name: str, *, required: bool = True) -> str:
    """A short printable text; "" if it is not there and need not be."""
    if not required and body.get(name) in (None, ""):
        return ""
    value = _text(body, name)
    if len(value) > MAX_WORD or not value.isprintable():
        raise BadRequest(f"'{name}' is not a text of at most {MAX_WORD} printable characters")
    return value


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except SthError as error:
        return web.json_response(error.to_wire(), status=error.http_status)
    except web.HTTPMethodNotAllowed as error:
        refused: SthError = MethodNotAllowed(f"{request.method} is not for this path")
        return web.json_response(
            refused.to_wire(),
            status=refused.http_status,
            headers={"Allow": ", ".join(sorted(error.allowed_methods))},
        )
    except web.HTTPRequestEntityTooLarge:
        refused = TooLarge(f"the body has more than {MAX_BODY} bytes")
    except web.HTTPNotFound:
        refused = NotFound(f"there is nothing at {request.path[:200]}")
    except web.HTTPException as error:
        refused = BadRequest(error.text or error.reason)
        return web.json_response(refused.to_wire(), status=error.status)
    except (RequestPayloadError, ConnectionError):
        # Nobody may be there to read the answer; raised, it would be logged as a fault of ours.
        refused = BodyCut("the body ended before its end")
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        refused = Internal("the broker failed; its log tells more")
    return web.json_response(refused.to_wire(), status=refused.http_status)
