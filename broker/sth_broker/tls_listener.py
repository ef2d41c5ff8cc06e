"""The TLS side of the agents' port: its context, its handshakes, and who may stay how long.

Handshakes are done here and not by the event loop's server, because only so can one that fails be
logged with its address: a client certificate of another CA must not vanish without a word. The port
is open to the world, so a connection that has not become a link is dropped after a time.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

# X509_V_FLAG_NO_CHECK_TIME. OpenSSL would end the connection of an expired certificate without a
# word that reaches the agent; our own code checks the times and answers with the reason.
_NO_CHECK_TIME = 0x200000

HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 2.0
# Enrolment, renewal and whoami are each one short request.
UNLINKED_SECONDS = 30.0
MAX_UNLINKED = 2048
MAX_UNLINKED_PER_ADDRESS = 512
_BACKLOG = 512


def server_context(certificate: Path, key: Path, authority_pem: str) -> ssl.SSLContext:
    """TLS 1.3; a client certificate is asked for, and must be of `authority_pem` if one is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= _NO_CHECK_TIME
    # A resumed session would speak for a certificate that was not shown again.
    context.num_tickets = 0
    context.load_verify_locations(cadata=authority_pem)
    context.load_cert_chain(certificate, key)
    return context


class TlsListener:
    """Accepts connections, secures them, and gives each to a protocol of `factory`."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._factory = factory
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        # Connections that are not links; an entry goes when its time is over, not before.
        self._deadlines: dict[asyncio.BaseTransport, tuple[str, asyncio.TimerHandle]] = {}
        self._unlinked: Counter[str] = Counter()

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept on a bound socket, which is closed at the end."""
        self._server = await self._loop.create_server(
            lambda: _Arrival(self._arrived), sock=listening, backlog=_BACKLOG
        )

    async def close(self) -> None:
        """Accept no more, and drop what is no link. Links are the gateway's to close."""
        if self._server is not None:
            self._server.close()
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for transport in list(self._deadlines):
            self._drop(transport)

    def adopt(self, transport: asyncio.BaseTransport | None) -> None:
        """The connection has become a link: it may stay."""
        if transport is not None and transport in self._deadlines:
            self._forget(transport)

    def _arrived(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else "unknown"
        if (
            self._unlinked.total() >= MAX_UNLINKED
            or self._unlinked[address] >= MAX_UNLINKED_PER_ADDRESS
        ):
            logger.warning("%s: too many connections at once; one is dropped", address)
            transport.abort()
            return
        # Not a byte before the handshake wants it.
        transport.pause_reading()
        self._watch(transport, address)
        task = self._loop.create_task(self._secure(transport, address), name="TLS handshake")
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _secure(self, plain: asyncio.Transport, address: str) -> None:
        early = _Early()
        try:
            secured = await self._loop.start_tls(
                plain,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            _log_failure(address, error)
            secured = None
        finally:
            self._forget(plain)
        if secured is None:
            plain.abort()
            return
        self._watch(secured, address)
        early.hand_over(secured, self._factory())

    def _watch(self, transport: asyncio.BaseTransport, address: str) -> None:
        timer = self._loop.call_later(UNLINKED_SECONDS, self._drop, transport)
        self._deadlines[transport] = (address, timer)
        self._unlinked[address] += 1

    def _forget(self, transport: asyncio.BaseTransport) -> None:
        address, timer = self._deadlines.pop(transport)
        timer.cancel()
        self._unlinked[address] -= 1
        if not self._unlinked[address]:
            del self._unlinked[address]

    def _drop(self, transport: asyncio.BaseTransport) -> None:
        self._forget(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


class _Arrival(asyncio.Protocol):
    """A connection before its handshake."""

    def __init__(self, arrived: Callable[[asyncio.Transport], None]) -> None:
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._arrived(transport)


class _Early(asyncio.Protocol):
    """Keeps what comes between the end of the handshake and the moment at which we hear of it: a
    client sends its request along with its last message of the handshake."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._has_eof = False
        self._lost: tuple[Exception | None] | None = None

    def data_received(self, data: bytes) -> None:
        self._data += data

    def eof_received(self) -> bool:
        self._has_eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """From now on the connection is `protocol`'s, which hears all that has happened."""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._data:
            protocol.data_received(bytes(self._data))
        if self._has_eof:
            protocol.eof_received()
        if self._lost is not None:
            protocol.connection_lost(self._lost[0])


def _log_failure(address: str, error: Exception) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        logger.warning(
            "%s is refused at TLS: its client certificate is not of this broker's CA (%s)",
            address,
            error.verify_message,
        )
    else:
        # The internet knocks at every open port.
        logger.info("%s made no TLS connection: %s", address, error or type(error).__name__)
