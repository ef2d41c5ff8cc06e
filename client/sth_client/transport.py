"""HTTP for the blocking client, on the standard library: one connection an exchange.

No connection is kept, so that a client may be used by several threads at once and never meets one
that its peer closed meanwhile. A body that breaks off is an error in both directions.
"""

import contextlib
import http.client
import io
import logging
import select
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from sth_client import answers, bodies, failures
from sth_client.calls import Request
from sth_client.endpoint import Endpoint
from sth_protocol.errors import StreamFailed

logger = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
# A peer that vanished without a word is noticed after about a minute, however quiet the stream.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Response:
    """The answer to one request; its body is read as it comes."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        sock: socket.socket,
        response: http.client.HTTPResponse,
        request: Request,
        endpoint: Endpoint,
        sent: int | None,
    ) -> None:
        self.status = response.status
        self.reason = response.reason
        self._connection = connection
        self._sock = sock
        self._response = response
        self._request = request
        self._endpoint = endpoint
        self._sent = sent
        self._received = 0

    @property
    def content_type(self) -> str:
        return str(self._response.getheader("Content-Type", ""))

    def read(self) -> bytes:
        """The next bytes, at most 64 KiB; b"" at the true end. StreamFailed if it broke off;
        TimeoutError as `set_silence` says."""
        try:
            data = self._response.read1(READ_BYTES)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._broke_off() from error
        if not data and self._response.length:  # what a Content-Length promised and did not come
            raise self._broke_off()
        self._received += len(data)
        return data

    def _broke_off(self) -> StreamFailed:
        # The broker begins its answer to an upload early: its end says that all has arrived.
        if self._sent is not None:
            return failures.sent_in_part(self._request.what, self._sent)
        return failures.received_in_part(self._request.what, self._received)

    def set_silence(self, seconds: float | None) -> None:
        """How long `read` waits for a byte; None for ever."""
        self._sock.settimeout(seconds)

    def json(self) -> object:
        """The whole body as JSON; the error it stands for if the status is one of an error."""
        body = bytearray()
        try:
            while (data := self.read()) and len(body) <= answers.MAX_JSON_BYTES:
                body += data
        except TimeoutError:
            seconds = self._request.timeout or 0
            raise failures.late(self._request.what, self._endpoint.base, seconds) from None
        return answers.read_json(
            self.status,
            self.reason,
            bytes(body),
            what=self._request.what,
            base=self._endpoint.base,
        )

    def close(self) -> None:
        self._response.close()
        self._connection.close()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def exchange(endpoint: Endpoint, request: Request, source: bodies.Source | None = None) -> Response:
    """Send a request, streaming `source` as its body, and give the answer's head.

    Unreachable if there is no connection, TimedOut without an answer in `request.timeout`,
    StreamFailed if the connection broke off while sending. What `source` raises comes out as it is,
    and the broker sees a body that was cut, not one that ended.
    """
    following = None if source is None else bodies.pieces(source)
    with contextlib.ExitStack() as undo:
        connection, sock = _connect(endpoint)
        undo.callback(sock.close)
        undo.callback(connection.close)
        sock.settimeout(request.timeout)
        upload = _Upload(connection, sock, endpoint, request)
        undo.callback(upload.abandon)
        waiting = source if isinstance(source, io.FileIO) else None
        response = upload.send(following, waiting)
        undo.pop_all()
        sent = None if source is None else upload.sent
        return Response(connection, sock, response, request, endpoint, sent)


def _connect(endpoint: Endpoint) -> tuple[http.client.HTTPConnection, socket.socket]:
    context = endpoint.tls_context()
    wait = endpoint.connect_timeout
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=wait)
    else:
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=wait, context=context
        )
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        raise failures.connecting(endpoint.base, wait, error) from error
    sock: socket.socket = connection.sock
    set_keepalive(sock)
    return connection, sock


def set_keepalive(sock: socket.socket) -> None:
    """Have the system notice a peer that vanished, as far as this system can."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if option := getattr(socket, name, None):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


class _Upload:
    """One request on its way out. An answer may come before the body has ended."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        sock: socket.socket,
        endpoint: Endpoint,
        request: Request,
    ) -> None:
        self._connection = connection
        self._sock = sock
        self._endpoint = endpoint
        self._request = request
        self.sent = 0
        self._response: http.client.HTTPResponse | None = None

    def send(
        self, pieces: Iterator[bodies.Octets] | None, waiting: io.FileIO | None
    ) -> http.client.HTTPResponse:
        """`waiting`: the file that the pieces are read from, if it is one that can keep us."""
        complete = False
        try:
            self._send_head(chunked=pieces is not None)
            complete = pieces is None or self._send_pieces(pieces, waiting)
        except _BrokenOff as error:
            logger.debug("sending %s: %s", self._request.what, error.__cause__)
        response = self._response or self._answer(complete=complete)
        if not complete and response.status < 400:
            raise failures.sent_in_part(self._request.what, self.sent)
        return response

    def abandon(self) -> None:
        """Close what was answered already: it keeps the connection open, and the broker would wait
        for the rest of the body."""
        if self._response is not None:
            self._response.close()

    def _send_head(self, *, chunked: bool) -> None:
        request, connection = self._request, self._connection
        path = self._endpoint.prefix + request.path
        connection.putrequest(request.method, path)
        for name, value in request.headers:
            connection.putheader(name, value)
        if self._endpoint.token:
            connection.putheader("Authorization", f"Bearer {self._endpoint.token}")
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif request.body is not None:
            connection.putheader("Content-Length", str(len(request.body)))
        with self._breaking_off():
            connection.endheaders(request.body)

    def _send_pieces(self, pieces: Iterator[bodies.Octets], waiting: io.FileIO | None) -> bool:
        """Whether the whole body was sent; not so when an error was answered meanwhile."""
        while True:
            if waiting is not None and self._refused_while_waiting(waiting):
                return False
            data = next(pieces, None)
            if data is None:
                break
            with self._breaking_off():
                self._sock.sendall(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
            self.sent += len(data)
        with self._breaking_off():
            self._sock.sendall(b"0\r\n\r\n")
        return True

    def _refused_while_waiting(self, source: io.FileIO) -> bool:
        """Wait until the source has something; true if the broker will take no more of it.

        A terminal or a pipe may be quiet for hours: an Instance that ends meanwhile must be told at
        once. Under TLS a readable socket may hold no more than a session ticket, so this is for
        plain connections; others learn it with their next piece.
        """
        poll = select.poll()
        poll.register(source, select.POLLIN)
        if not self._endpoint.secure:
            poll.register(self._sock, select.POLLIN)
        while self._sock.fileno() in {descriptor for descriptor, _ in poll.poll()}:
            # An answer that goes on before the body has ended breaks off.
            if self._response is not None or self._answer(complete=False).status >= 400:
                return True
        return False

    def _answer(self, *, complete: bool) -> http.client.HTTPResponse:
        what, base = self._request.what, self._endpoint.base
        try:
            self._response = self._connection.getresponse()
            return self._response
        except TimeoutError:
            raise failures.late(what, base, self._request.timeout or 0) from None
        except http.client.RemoteDisconnected as error:
            raise self._no_answer(complete=complete) from error
        except http.client.HTTPException as error:
            raise failures.foreign(what, base, f"{type(error).__name__} {error}"[:200]) from error
        except OSError as error:
            raise self._no_answer(complete=complete) from error

    def _no_answer(self, *, complete: bool) -> Exception:
        if self.sent and not complete:
            return failures.sent_in_part(self._request.what, self.sent)
        return failures.unanswered(self._request.what, self._endpoint.base)

    @contextlib.contextmanager
    def _breaking_off(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            seconds = self._request.timeout or 0
            raise failures.late(self._request.what, self._endpoint.base, seconds) from None
        except OSError as error:
            raise _BrokenOff from error


class _BrokenOff(Exception):
    """The peer takes no more; its reason may still be there to read."""
