"""The broker's core on a loopback port, and the machines that dial it, in one process: real TLS,
real websockets, a real store. Only the API is not there."""

import base64
import contextlib
import os
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from sth_broker.agents_port import AgentsPort
from sth_broker.audit import AuditLog
from sth_broker.auth import Authenticator
from sth_broker.enrolment import Enrolment
from sth_broker.gateway import Gateway
from sth_broker.hubs import HubRegistry
from sth_broker.pki import AGENT_LIFETIME_SECONDS, SERVER_NAME, CertificateAuthority
from sth_broker.store.embedded import Store, open_store
from sth_broker.tokens import TokenService
from sth_protocol import frames, handshake
from sth_protocol.control import notice, reply
from sth_protocol.events import Control, Event
from sth_protocol.handshake import Close, Hello, Welcome
from sth_protocol.jointoken import JoinToken, parse_token
from sth_protocol.model import HubInfo
from sth_protocol.mux import Mux, Side

SPACE = "default"
INFO = HubInfo(
    name="pi", agent_version="0.1.0", arch="aarch64", os="Linux", python="3.11", host_name="Pi 4"
)


class Clock:
    """Wall-clock time that a test can move; seconds since 1970."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@dataclass
class Core:
    """A running core. `audit_path`: where its audit is."""

    port: int
    clock: Clock
    store: Store
    audit_path: Path
    authority: CertificateAuthority
    tokens: TokenService
    authenticator: Authenticator
    hubs: HubRegistry
    gateway: Gateway
    enrolment: Enrolment
    agents_port: AgentsPort

    async def join_token(self, **options: Any) -> JoinToken:
        text = await self.tokens.make_join(
            **{
                "space": SPACE,
                "addresses": [f"127.0.0.1:{self.port}"],
                "pins": [self.authority.pin],
                "by": "test",
                **options,
            }
        )
        return parse_token(text)

    async def joined(self, name: str = "") -> "Machine":
        """A machine that has its certificate."""
        machine = Machine(self)
        status, answer = await machine.enroll(await self.join_token(), name=name)
        assert status == 200, answer
        return machine


@contextlib.asynccontextmanager
async def running_core(
    data: Path,
    *,
    clock: Clock | None = None,
    lifetime: float = AGENT_LIFETIME_SECONDS,
    resume_seconds: float = 60.0,
    port: int = 0,
) -> AsyncIterator[Core]:
    """A core with its state in `data`. `port`: that of an earlier one, to be found again."""
    clock = clock or Clock()
    store = open_store(data)
    audit = AuditLog(data / "audit.ndjson", clock=clock)
    keys = data / "pki"
    authority = CertificateAuthority.open(keys, now=clock())
    tokens = TokenService(store.records, audit, keys, clock=clock)
    listening = socket.create_server(("127.0.0.1", port))
    addresses = [f"127.0.0.1:{listening.getsockname()[1]}"]
    gateway = Gateway(addresses=addresses, resume_seconds=resume_seconds)
    hubs = HubRegistry(store.records, audit, gateway, clock=clock)
    await hubs.load()
    enrolment = Enrolment(
        records=store.records,
        tokens=tokens,
        hubs=hubs,
        audit=audit,
        authority=authority,
        addresses=addresses,
        lifetime=lifetime,
        clock=clock,
    )
    agents_port = AgentsPort(
        authority=authority,
        directory=keys,
        names=["localhost", "127.0.0.1"],
        hubs=hubs,
        enrolment=enrolment,
        gateway=gateway,
        clock=clock,
    )
    gateway.start()
    await agents_port.start(listening)
    try:
        yield Core(
            port=listening.getsockname()[1],
            clock=clock,
            store=store,
            audit_path=data / "audit.ndjson",
            authority=authority,
            tokens=tokens,
            authenticator=Authenticator(store.records, tokens, clock=clock),
            hubs=hubs,
            gateway=gateway,
            enrolment=enrolment,
            agents_port=agents_port,
        )
    finally:
        await gateway.close()
        await agents_port.close()
        await hubs.close()
        audit.close()
        await store.close()


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(key: Any) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


class Dialled(Protocol):
    """What a machine needs to know of the broker that it dials."""

    @property
    def port(self) -> int: ...

    @property
    def authority(self) -> CertificateAuthority: ...


@dataclass
class Machine:
    """A machine that dials a broker: its key, and its certificate once it has joined."""

    core: Dialled
    key: ec.EllipticCurvePrivateKey = field(default_factory=make_key)
    certificate: str = ""
    hub: str = ""
    boot: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    epoch: int = 0

    def context(self) -> ssl.SSLContext:
        """Trusts the core's CA alone, and shows the certificate if there is one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.core.authority.pem)
        if self.certificate:
            show_certificate(context, self.key, self.certificate)
        return context

    async def http(
        self, method: str, path: str, *, json: Any = None, data: Any = None, context: Any = None
    ) -> tuple[int, Any]:
        """Status and body: JSON where it is JSON, else text."""
        connector = aiohttp.TCPConnector(ssl=context or self.context())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method,
                f"https://127.0.0.1:{self.core.port}{path}",
                json=json,
                data=data,
                server_hostname=SERVER_NAME,
            ) as response,
        ):
            if response.content_type == "application/json":
                return response.status, await response.json()
            return response.status, await response.text()

    async def enroll(self, token: JoinToken, **fields: Any) -> tuple[int, Any]:
        """Ask to join; the certificate is kept if it is granted."""
        body = enrolment_body(token, signing_request(self.key), **fields)
        status, answer = await self.http("POST", "/v1/enroll", json=body)
        if status == 200:
            self.certificate, self.hub = answer["certificate"], answer["hub"]
        return status, answer

    @contextlib.asynccontextmanager
    async def websocket(self) -> AsyncIterator[ClientConnection]:
        """The link before its HELLO."""
        async with connect(
            f"wss://127.0.0.1:{self.core.port}/v1/link",
            ssl=self.context(),
            server_hostname=SERVER_NAME,
            subprotocols=["sth.v1"],  # type: ignore[list-item]
            compression=None,
            max_size=320 * 1024,
            close_timeout=2,
        ) as websocket:
            yield websocket

    @contextlib.asynccontextmanager
    async def link(self, *, resume: "AgentEnd | None" = None) -> AsyncIterator["AgentEnd"]:
        """A link after its handshake; `resume`: the end whose session is to go on."""
        async with self.websocket() as websocket:
            yield await self.greet(websocket, resume=resume)

    async def greet(
        self, websocket: ClientConnection, *, resume: "AgentEnd | None" = None
    ) -> "AgentEnd":
        """Say HELLO; the broker must answer WELCOME."""
        self.epoch += 1
        hello = Hello(
            agent_boot=self.boot,
            epoch=self.epoch,
            hub=INFO,
            broker_boot=resume.welcome.broker_boot if resume else None,
            received=resume.mux.received if resume else 0,
        )
        await websocket.send(handshake.encode_hello(hello))
        answer = handshake.decode_answer(await _binary(websocket))
        assert isinstance(answer, Welcome), answer
        mux = resume.mux if resume and answer.resumed else Mux(side=Side.AGENT)
        mux.attach(peer_received=answer.received if answer.resumed else 0)
        return AgentEnd(websocket, answer, mux)


@dataclass
class AgentEnd:
    """The agent's end of one link."""

    websocket: ClientConnection
    welcome: Welcome
    mux: Mux
    _events: list[Event] = field(default_factory=list)

    async def flush(self) -> None:
        """Send what waits."""
        while self.mux.has_outgoing:
            for message in self.mux.take_outgoing():
                await self.websocket.send(message)

    async def next_event(self, kind: type[Any]) -> Any:
        """The next event of that kind; others are dropped."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kind):
                    return event
            self._events += self.mux.receive(await _binary(self.websocket))
            await self.flush()

    async def request(self, type: str, *, id: int, **fields: object) -> dict[str, Any]:
        """The broker's whole answer to a control request."""
        self.mux.control({**fields, "type": type, "id": id})
        await self.flush()
        while True:
            event = await self.next_event(Control)
            if event.message.get("type") == "reply" and event.message.get("id") == id:
                return dict(event.message)

    async def tell(self, type: str, **fields: object) -> None:
        self.mux.control(notice(type, **fields))
        await self.flush()

    async def answer(self, id: int, **result: object) -> None:
        self.mux.control(reply(id, result))
        await self.flush()

    async def closing(self) -> Close:
        """Why the broker closes this link."""
        return await close_on(self.websocket)


def enrolment_body(token: JoinToken, request: str, **fields: Any) -> dict[str, Any]:
    """What a machine posts to join."""
    return {
        "token_id": token.public_id,
        "secret": base64.urlsafe_b64encode(token.secret).decode(),
        "csr": request,
        "name": "",
        "host_name": "Pi 4",
        "arch": "aarch64",
        "os": "Linux",
        "python": "3.11",
        "libc": "glibc 2.36",
        "agent_version": "0.1.0",
        **fields,
    }


def show_certificate(
    context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, certificate: str
) -> None:
    """Make a TLS context show a client certificate; OpenSSL takes it from files alone."""
    key_text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.memfd_create("identity")
    try:
        os.write(descriptor, key_text + certificate.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


async def close_on(websocket: ClientConnection) -> Close:
    """Why the broker closes the link; what comes before is dropped. The websocket ends then."""
    reason: Close | None = None
    with contextlib.suppress(ConnectionClosed):
        while True:
            for kind, _, _, payload in frames.decode(await _binary(websocket)):
                if kind == frames.FrameType.CLOSE:
                    reason = Close(**frames.decode_map(payload))
    assert reason is not None, "the websocket ended without a CLOSE"
    return reason


async def _binary(websocket: ClientConnection) -> bytes:
    message = await websocket.recv()
    assert isinstance(message, bytes)
    return message
