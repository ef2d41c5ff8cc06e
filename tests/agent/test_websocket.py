"""The client's end of a websocket, against a real server's protocol on loopback."""

import asyncio
import socket
import ssl

import pytest
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from sth_agent.addresses import Address
from sth_agent.link import PATH
from sth_agent.websocket import SUBPROTOCOL, WebSocket, connect
from sth_protocol.errors import Unreachable


class Answering:
    """Sends an answer to every message, and remembers what came of it."""

    def __init__(self) -> None:
        self.socket: WebSocket | None = None
        self.happened: list[str] = []
        self.ended = asyncio.Event()

    def message_received(self, message: bytes) -> None:
        assert self.socket is not None
        self.happened.append(message.decode())
        self.socket.send(b"an answer")
        self.happened.append("went on")

    def writable(self) -> None: ...

    def closed(self, reason: str) -> None:
        self.happened.append("closed")
        self.ended.set()


async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Two messages and the end of the connection, in one write after the answer to the upgrade."""
    protocol = ServerProtocol(subprotocols=[SUBPROTOCOL])
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    for event in protocol.events_received():
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
    protocol.send_binary(b"first")
    protocol.send_binary(b"second")
    protocol.send_close(CloseCode.NORMAL_CLOSURE, "that is all")
    writer.write(b"".join(protocol.data_to_send()))
    await writer.drain()
    # Its CLOSE: the server is the one that ends the connection.
    await reader.read(1024)
    writer.close()
    await writer.wait_closed()


async def test_messages_that_came_with_the_close_can_be_answered_in_vain() -> None:
    receiver = Answering()
    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    async with server:
        loop, port = asyncio.get_running_loop(), server.sockets[0].getsockname()[1]
        # `connect` adds TLS and nothing else.
        made = receiver.socket = WebSocket(PATH, receiver)
        await loop.create_connection(lambda: made, "127.0.0.1", port)
        await made.opened
        async with asyncio.timeout(20):
            await receiver.ended.wait()
    assert receiver.happened == ["first", "went on", "second", "went on", "closed"]


async def test_address_where_nobody_listens_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        await connect(
            Address("127.0.0.1", port),
            PATH,
            context=ssl.create_default_context(),
            receiver=Answering(),
        )
    assert caught.value.message == f"127.0.0.1:{port}: Connection refused"
