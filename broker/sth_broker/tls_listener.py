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

from aiohttp import web

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
ACCEPT_RETRY_SECONDS = 0.5
# As many agents may dial at once when a broker comes back.
_BACKLOG = 512

Protocol = web.RequestHandler


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

    def __init__(self, factory: Callable[[], Protocol], context: ssl.SSLContext) -> None:
        self._factory = factory
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        # Connections that are not links. An entry goes when its time is over, even if the
        # connection went before: so this also counts how often an address connects.
        self._deadlines: dict[Protocol, tuple[str, asyncio.TimerHandle]] = {}
        self._unlinked: Counter[str] = Counter()

    def start(self, listening: socket.socket) -> None:
        """Begin to accept on a bound socket, which is closed at the end."""
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        self._listening = listening
        self._acceptor = self._loop.create_task(self._accept(listening), name="agents' port")

    async def close(self) -> None:
        """Accept no more, and drop what is no link. Links are the gateway's to close."""
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.gather(self._acceptor, return_exceptions=True)
        # A handshake that is cancelled before it has begun would leave its socket open.
        await asyncio.sleep(0)
        tasks = list(self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
        for protocol in list(self._deadlines):
            self._drop(protocol)

    def adopt(self, protocol: Protocol) -> None:
        """The connection has become a link: it may stay."""
        self._forget(protocol)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, peer = await self._loop.sock_accept(listening)
            except OSError as error:
                # Descriptors have run out, perhaps; those that wait are taken when some are free.
                logger.error("no connection can be accepted: %s", error)
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            address = str(peer[0])
            if (
                self._unlinked.total() >= MAX_UNLINKED
                or self._unlinked[address] >= MAX_UNLINKED_PER_ADDRESS
            ):
                logger.warning("%s: too many connections at once; one is dropped", address)
                accepted.close()
                continue
            task = self._loop.create_task(self._secure(accepted, address), name="TLS handshake")
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _secure(self, accepted: socket.socket, address: str) -> None:
        protocol = self._factory()
        timer = self._loop.call_later(UNLINKED_SECONDS, self._drop, protocol)
        self._deadlines[protocol] = (address, timer)
        self._unlinked[address] += 1
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            _log_failure(address, error)

    def _forget(self, protocol: Protocol) -> None:
        known = self._deadlines.pop(protocol, None)
        if known is None:
            return
        address, timer = known
        timer.cancel()
        self._unlinked[address] -= 1
        if not self._unlinked[address]:
            del self._unlinked[address]

    def _drop(self, protocol: Protocol) -> None:
        self._forget(protocol)
        if protocol.transport is not None:
            protocol.transport.abort()


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
