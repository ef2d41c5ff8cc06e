"""HTTP for the asynchronous client, on aiohttp; what `transport` is for the blocking one.

aiohttp's errors end here. No connection is used twice: a kept one that the peer closed meanwhile
would fail a request that cannot be sent again.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

from sth_client import answers, bodies, failures
from sth_client.calls import Request
from sth_client.endpoint import Endpoint
from sth_client.transport import set_keepalive
from sth_protocol.errors import Misconfigured

try:
    import aiohttp
    import yarl
except ImportError as missing:
    raise Misconfigured(
        "the asynchronous client needs aiohttp", hint='install the extra: "sth-edge[client]"'
    ) from missing


class Response:
    """The answer to one request; its body is read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse, request: Request) -> None:
        self.content_type = response.headers.get("Content-Type", "")
        self._response = response
        self._request = request
        self._received = 0

    async def read(self) -> bytes:
        """The next bytes; b"" at the true end. StreamFailed if it broke off."""
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise failures.received_in_part(self._request.what, self._received) from error
        self._received += len(data)
        return data

    def close(self) -> None:
        self._response.close()


class _Outgoing:
    """A body on its way out, and how far it came."""

    def __init__(self, source: bodies.AsyncSource) -> None:
        self.sent = 0
        self.complete = False
        self.error: Exception | None = None
        self._pieces = bodies.pieces_async(source)

    async def pieces(self) -> AsyncIterator[bodies.Octets]:
        try:
            async for data in self._pieces:
                yield data
                self.sent += len(data)
        except Exception as error:
            # aiohttp would report it as a broken connection; it is the caller's own.
            self.error = error
            raise
        self.complete = True


class Transport:
    """Exchanges with one broker. The session is made by the first, when a loop runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(self, request: Request, source: bodies.AsyncSource | None = None) -> object:
        """Send a request, streaming `source` as its body, and give the JSON of its answer.

        Unreachable if there is no connection, TimedOut without an answer in `request.timeout`,
        StreamFailed if the connection broke off while sending, or the error that was answered. What
        `source` raises comes out as it is, and the broker sees a body that was cut.
        """
        outgoing = None if source is None else _Outgoing(source)
        with self._named_errors(request, outgoing):
            async with asyncio.timeout(request.timeout):
                response = await self._send(request, outgoing)
                try:
                    body = await response.read()
                finally:
                    response.close()
        if response.status < 400 and outgoing is not None and not outgoing.complete:
            raise failures.sent_in_part(request.what, outgoing.sent)
        return self._json(response, body, request)

    async def open(self, request: Request) -> Response:
        """Send a request whose answer is a stream; the error that was answered, else its head."""
        with self._named_errors(request, None):
            async with asyncio.timeout(request.timeout):
                response = await self._send(request, None)
                if response.status == 200:
                    return Response(response, request)
                try:
                    body = await response.read()
                finally:
                    response.close()
        self._json(response, body, request)
        raise failures.foreign(request.what, self._endpoint.base, f"HTTP {response.status}")

    async def _send(self, request: Request, outgoing: _Outgoing | None) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = _open_session(self._endpoint)
        return await self._session.request(
            request.method,
            yarl.URL(self._endpoint.url(request.path), encoded=True),
            headers=dict(request.headers),
            data=request.body if outgoing is None else outgoing.pieces(),
            allow_redirects=False,
        )

    def _json(self, response: aiohttp.ClientResponse, body: bytes, request: Request) -> object:
        return answers.read_json(
            response.status,
            response.reason or "",
            body,
            what=request.what,
            base=self._endpoint.base,
        )

    @contextlib.contextmanager
    def _named_errors(self, request: Request, outgoing: _Outgoing | None) -> Iterator[None]:
        base, what, wait = self._endpoint.base, request.what, self._endpoint.connect_timeout
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise failures.connecting(base, wait, error.certificate_error) from error
        except aiohttp.ClientConnectorError as error:
            raise failures.connecting(base, wait, error.os_error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise failures.connecting(base, wait, error) from error
        except TimeoutError as error:
            raise failures.late(what, base, request.timeout or 0) from error
        except aiohttp.ClientResponseError as error:
            raise failures.foreign(what, base, error.message[:200]) from error
        except aiohttp.ClientPayloadError as error:
            # The broker begins its answer to an upload early: its end says that all has arrived.
            if outgoing is not None:
                raise failures.sent_in_part(what, outgoing.sent) from error
            raise failures.unanswered(what, base) from error
        except (aiohttp.ClientError, OSError) as error:
            if outgoing is not None and outgoing.error is not None:
                raise outgoing.error from None
            if outgoing is not None and outgoing.sent and not outgoing.complete:
                raise failures.sent_in_part(what, outgoing.sent) from error
            raise failures.unanswered(what, base) from error


def _open_session(endpoint: Endpoint) -> aiohttp.ClientSession:
    headers = {"Accept-Encoding": "identity"}
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    wait = endpoint.connect_timeout
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=endpoint.tls_context() or True,
            # Streams are open for days: a limit would make one call more than it wait for ever.
            limit=0,
            force_close=True,
            socket_factory=_open_socket,
        ),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, connect=wait, sock_connect=wait),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _open_socket(address: aiohttp.connector.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    set_keepalive(sock)
    return sock
