"""One websocket to an agent: bytes out without waiting while the socket takes them.

What an application queues in a socket cannot be overtaken by anything, so little is queued: the
rest waits in the multiplexer, where a ping and a control message still go first.
"""

import asyncio
import socket
import struct
import sys

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from sth_protocol.frames import MAX_MESSAGE

SUBPROTOCOL = "sth.v1"
WRITE_LIMIT = 64 * 1024
NOTSENT_LOWAT = 128 * 1024
CLOSE_SECONDS = 2.0

_TCP_NOTSENT_LOWAT = 25
# struct tcp_info of linux/tcp.h: eight bytes, then eleven u32, then tcpi_last_data_recv in ms.
_LAST_DATA_RECEIVED = struct.Struct("=52xI")


class LinkSocket:
    """A websocket after its upgrade. Made by `upgrade`."""

    def __init__(
        self, websocket: web.WebSocketResponse, request: web.Request, drain: AbstractStreamWriter
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the connection is gone")
        self.remote = request.remote or "unknown"
        self._websocket = websocket
        self._protocol = request.protocol
        self._drain = drain
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._loop = asyncio.get_running_loop()
        self._received_at = self._loop.time()
        self._closing: asyncio.Task[None] | None = None
        transport.set_write_buffer_limits(high=WRITE_LIMIT)
        self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    async def upgrade(cls, request: web.Request) -> "LinkSocket":
        """Answer the request with a websocket. An aiohttp HTTPBadRequest if it asks for none."""
        websocket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=MAX_MESSAGE,
            timeout=CLOSE_SECONDS,
            # It never waits by itself: `congested` is asked before each message.
            writer_limit=sys.maxsize,
        )
        drain = await websocket.prepare(request)
        return cls(websocket, request, drain)

    @property
    def response(self) -> web.WebSocketResponse:
        """What the route's handler returns at the end."""
        return self._websocket

    @property
    def congested(self) -> bool:
        """Whether to wait for `drained` before more is sent."""
        return self._protocol.writing_paused

    async def drained(self) -> bool:
        """Returns when the socket takes more; False when it never will."""
        try:
            await self._drain.drain()
        except ConnectionError:
            return False
        return not self._transport.is_closing()

    def send(self, message: bytes) -> None:
        """Hand one binary message to the transport; into a socket that is gone, nothing."""
        sending = self._websocket.send_bytes(message)
        # With a writer limit that is never reached it does not suspend: one step finishes it, and
        # neither a task nor a turn of the loop is spent on each message.
        try:
            sending.send(None)
        except (StopIteration, ConnectionError):
            return
        else:
            raise RuntimeError("aiohttp waited while it sent a message")

    async def receive(self) -> bytes | None:
        """The next binary message; None when the link is over, for whatever reason."""
        message = await self._websocket.receive()
        self._received_at = self._loop.time()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        return None

    def silent_for(self) -> float:
        """Seconds since any byte came. A long message on a thin link is life while it trickles in,
        which only the kernel sees."""
        silence = self._loop.time() - self._received_at
        if silence < 1.0 or self._transport.is_closing():
            return silence
        size = _LAST_DATA_RECEIVED.size
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
        milliseconds: int = _LAST_DATA_RECEIVED.unpack(info)[0]
        return min(silence, milliseconds / 1000)

    async def close(self) -> None:
        """Close as websockets do, then for good; returns within a few seconds. May be called again,
        and by several."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._websocket.close()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the connection and what it has not sent."""
        if not self._transport.is_closing():
            self._transport.abort()
