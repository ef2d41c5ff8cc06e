"""The client's end of one websocket over TLS, on an asyncio transport.

It drives the sans-I/O protocol of `websockets` itself rather than `websockets.asyncio`: the link
writes from callbacks, without a task and without a queue of its own, and that halves its latency.
It knows nothing of what the messages mean.
"""

import asyncio
import json
import logging
import os
import socket
import ssl
from typing import Any, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from sth_agent.addresses import SERVER_NAME, Address
from sth_agent.broker_http import CertificateRefused, ConnectionCut
from sth_protocol.errors import SthError, Unreachable, from_wire
from sth_protocol.frames import MAX_MESSAGE

logger = logging.getLogger(__name__)

SUBPROTOCOL = Subprotocol("sth.v1")
CONNECT_TIMEOUT = 15.0
CLOSE_TIMEOUT = 2.0
WRITE_LIMIT = 64 * 1024
# What waits in the kernel cannot be overtaken by a ping: at 1 Mbit/s it waited 34 s behind 4 MB.
NOT_SENT_LIMIT = 128 * 1024


class Receiver(Protocol):
    """Who is told what happens on a websocket. Nothing here may block."""

    def message_received(self, message: bytes) -> None: ...

    def writable(self) -> None:
        """Less waits to be written than the limit: go on."""

    def closed(self, reason: str) -> None:
        """The connection is gone; called once, and only if it was open."""


class WebSocket(asyncio.Protocol):
    """One connection. `opened` resolves when messages may be sent, or fails with the reason."""

    def __init__(self, path: str, receiver: Receiver) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.congested = False
        self._receiver = receiver
        self._protocol = ClientProtocol(
            parse_uri(f"wss://{SERVER_NAME}{path}"),
            subprotocols=[SUBPROTOCOL],
            max_size=MAX_MESSAGE,
        )
        self._transport: asyncio.Transport | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    def send(self, message: bytes) -> None:
        """Hand a message to the transport; look at `congested` before the next one. Of a connection
        that the broker is closing nothing is sent: `closed` follows."""
        if self._protocol.state is not State.OPEN:
            return
        self._protocol.send_binary(message)
        self._write_pending()

    def close(self, reason: str = "") -> None:
        """End the connection; `closed` follows."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000, reason[:100])
            self._write_pending()
        if self._abort_timer is None:
            self._abort_timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """End the connection without a word, for a peer that is dead."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        plain = transport.get_extra_info("socket")
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LIMIT)
        self._protocol.send_request(self._protocol.connect())
        self._write_pending()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._write_pending()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.BINARY:
                    self._receiver.message_received(cast(bytes, event.data))
                elif event.opcode in (Opcode.TEXT, Opcode.CONT) or not event.fin:
                    self._refuse("only whole binary messages travel on a link")
                    return
            elif isinstance(event, Response):
                self._answered()
        if self._protocol.parser_exc is not None:
            self._close_transport()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        return False

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self.opened.done():
            self._receiver.writable()

    def connection_lost(self, error: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._transport = None
        if not self.opened.done():
            reason = str(error or "end of stream")
            self.opened.set_exception(
                ConnectionCut(f"the broker ended the connection without an answer ({reason})")
            )
        elif self.opened.exception() is None:
            self._receiver.closed(self._close_reason(error))

    def _answered(self) -> None:
        failure = self._protocol.handshake_exc
        if self.opened.done():
            return
        if failure is None:
            self.opened.set_result(None)
            return
        self.opened.set_exception(_handshake_error(failure))
        self._close_transport()

    def _refuse(self, reason: str) -> None:
        self._protocol.fail(1003, reason)
        self._write_pending()
        self._close_transport()

    def _write_pending(self) -> None:
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._close_transport()

    def _close_transport(self) -> None:
        # A second close() leaves a TLS transport of Python 3.11.2 without its protocol: it can then
        # be neither aborted nor asked.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def _close_reason(self, error: Exception | None) -> str:
        close = self._protocol.close_rcvd
        if close is not None:
            said = f"{close.code} {close.reason}".strip()
            return f"the broker closed the link ({said})"
        if self._protocol.parser_exc is not None and error is None:
            return f"the connection ended: {self._protocol.parser_exc}"
        return f"the connection was lost: {error or 'end of stream'}"


def _handshake_error(failure: Exception) -> SthError:
    if isinstance(failure, InvalidStatus):
        answer = _json_object(failure.response.body)
        if "code" in answer:
            return from_wire(answer)
        return Unreachable(
            f"the address answered HTTP {failure.response.status_code} to the link",
            hint="is that address the agents' port of a broker?",
        )
    if isinstance(failure, InvalidHandshake):
        return Unreachable(f"the address does not speak our websocket: {failure}")
    return Unreachable(f"the websocket could not be opened: {failure}")


def _json_object(body: bytes | bytearray | None) -> dict[str, Any]:
    try:
        value = json.loads(body or b"")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def connect(
    address: Address, path: str, *, context: ssl.SSLContext, receiver: Receiver
) -> WebSocket:
    """An open websocket. Unreachable in one of its kinds, or the error that the broker answered."""
    loop = asyncio.get_running_loop()
    created: list[WebSocket] = []

    def factory() -> WebSocket:
        created.append(WebSocket(path, receiver))
        return created[-1]

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await loop.create_connection(
                factory, address.host, address.port, ssl=context, server_hostname=SERVER_NAME
            )
            await connection.opened
            return connection
    except TimeoutError:
        raise Unreachable(f"{address}: no answer in {CONNECT_TIMEOUT:.0f} s") from None
    except ssl.SSLCertVerificationError as error:
        raise CertificateRefused(
            f"the certificate of {address} is not accepted: {error.verify_message}",
            verify_code=error.verify_code,
        ) from None
    except socket.gaierror as error:
        raise Unreachable(
            f"the name '{address.host}' cannot be resolved: {error.strerror}"
        ) from None
    except ssl.SSLError as error:
        raise Unreachable(
            f"{address} does not speak TLS as a broker does: {error.reason}"
        ) from None
    except OSError as error:
        # asyncio's own text of one error repeats the address, with the number of the error.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Unreachable(f"{address}: {reason}") from None
    finally:
        for each in created:
            if not each.opened.done() or each.opened.cancelled() or each.opened.exception():
                each.abort()
