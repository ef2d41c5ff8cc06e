"""Answers that go on: how they begin, and how one that broke off is told from one that ended."""

import socket
import struct

from aiohttp import HttpVersion11, web

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def octets(status: int = 200) -> web.StreamResponse:
    """The answer of every stream, as the original gives it."""
    return web.StreamResponse(
        status=status,
        headers={"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff"},
    )


def break_off(request: web.Request) -> None:
    """Close the connection without the end of the answer, so that nobody takes this for its end.
    What was written before still goes out."""
    transport = request.transport
    if transport is None:
        return
    if request.version < HttpVersion11:
        # Without chunks the end of the connection is the end of the answer; only a reset is not.
        abort(request)
    else:
        # So that nothing is read of a body that nobody wants any more.
        request.protocol.force_close()


def abort(request: web.Request) -> None:
    """Reset the connection now, with all that waits on it."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
