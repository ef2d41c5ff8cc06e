"""The bare mechanisms that figures are measured against, each sender and receiver a process.

    python -m scripts.benches.peers receive-tls DIRECTORY
    python -m scripts.benches.peers send-tls DIRECTORY PORT MEBIBYTES
    python -m scripts.benches.peers receive-websocket DIRECTORY
    python -m scripts.benches.peers send-websocket DIRECTORY PORT MEBIBYTES

A receiver prints its port, then for each connection a line: bytes and seconds from the first byte
to the last. It runs on uvloop and the sender on asyncio, as broker and agent do.
"""

import asyncio
import ssl
import sys
import time
from pathlib import Path

import uvloop
from aiohttp import WSMsgType, web
from websockets.asyncio.client import connect

CHUNK = 64 * 1024
# The name that agents check, so that one certificate serves the bare peers and ours.
SERVER_NAME = "broker.sth.invalid"


def server_context(directory: Path) -> ssl.SSLContext:
    """TLS 1.3 that asks for a client certificate of the same CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(directory / "ca.pem")
    context.load_cert_chain(directory / "client.pem", directory / "client.key")
    return context


class Stopwatch:
    """Bytes, and the time from the first to the last of them."""

    def __init__(self) -> None:
        self.bytes = 0
        self._first = 0.0

    def count(self, number: int) -> None:
        if not self.bytes:
            self._first = time.perf_counter()
        self.bytes += number

    def print(self) -> None:
        sys.stdout.write(f"{self.bytes} {time.perf_counter() - self._first}\n")
        sys.stdout.flush()


class _Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self._watch = Stopwatch()

    def data_received(self, data: bytes) -> None:
        self._watch.count(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.print()


class _Sender(asyncio.Protocol):
    def __init__(self, count: int) -> None:
        self._left = count
        self._chunk = bytes(CHUNK)
        self._writing = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=CHUNK)
        self._send()

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._send()

    def _send(self) -> None:
        while self._writing and self._left:
            self._left -= 1
            self._transport.write(self._chunk)
        if not self._left:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def receive_tls(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Receiver, "127.0.0.1", 0, ssl=server_context(directory))
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def send_tls(directory: Path, port: int, mebibytes: int) -> None:
    loop = asyncio.get_running_loop()
    _, sender = await loop.create_connection(
        lambda: _Sender(mebibytes * 16),
        "127.0.0.1",
        port,
        ssl=client_context(directory),
        server_hostname=SERVER_NAME,
    )
    await sender.done


async def _count_messages(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, max_msg_size=320 * 1024)
    await socket.prepare(request)
    watch = Stopwatch()
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            break
        watch.count(len(message.data))
    watch.print()
    return socket


async def receive_websocket(directory: Path) -> None:
    application = web.Application()
    application.router.add_get("/", _count_messages)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(directory))
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def send_websocket(directory: Path, port: int, mebibytes: int) -> None:
    chunk = bytes(CHUNK)
    async with connect(
        f"wss://127.0.0.1:{port}/",
        ssl=client_context(directory),
        server_hostname=SERVER_NAME,
        compression=None,
        max_size=320 * 1024,
        ping_interval=None,
        write_limit=CHUNK,
    ) as link:
        for _ in range(mebibytes * 16):
            await link.send(chunk)


def main() -> None:
    action, directory = sys.argv[1], Path(sys.argv[2])
    match action:
        case "receive-tls":
            uvloop.run(receive_tls(directory))
        case "receive-websocket":
            uvloop.run(receive_websocket(directory))
        case "send-tls":
            asyncio.run(send_tls(directory, int(sys.argv[3]), int(sys.argv[4])))
        case "send-websocket":
            asyncio.run(send_websocket(directory, int(sys.argv[3]), int(sys.argv[4])))
        case _:
            sys.exit(f"no such peer: {action}")


if __name__ == "__main__":
    main()
