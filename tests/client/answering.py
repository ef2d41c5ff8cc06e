"""A real HTTP server on loopback that answers as each test says, in a thread of its own."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class AnsweringServer:
    """`handlers`: by "METHOD /path"; without one the answer is 404."""

    url: str = ""
    handlers: dict[str, Handler] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    # Set by handlers that wait for something; every wait has a limit.
    seen: threading.Event = field(default_factory=threading.Event)

    def answer(self, route: str, value: object, *, status: int = 200) -> None:
        """Answer JSON, after the whole body has come."""

        async def handler(request: web.Request) -> web.StreamResponse:
            await self.take(request)
            return web.json_response(value, status=status)

        self.handlers[route] = handler

    def stream(self, route: str, *chunks: bytes, breaks: bool = False) -> None:
        """Answer a stream; `breaks`: close the connection instead of ending it."""

        async def handler(request: web.Request) -> web.StreamResponse:
            await self.take(request)
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
            if breaks:
                assert request.transport is not None
                request.transport.close()
            return response

        self.handlers[route] = handler

    async def take(self, request: web.Request) -> bytes:
        """The whole body, kept with its request."""
        body = await request.read()
        self.keep(request, body)
        return body

    def keep(self, request: web.Request, body: bytes) -> None:
        self.received.append(
            Received(request.method, request.raw_path, dict(request.headers), body)
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        handler = self.handlers.get(f"{request.method} {request.raw_path}")
        if handler is None:
            error = {"error": "Not Found", "code": "NOT_FOUND", "message": "nothing here"}
            return web.json_response(error, status=404)
        return await handler(request)


@contextlib.contextmanager
def answering(tls: ssl.SSLContext | None = None) -> Iterator[AnsweringServer]:
    """A server for the time of the context."""
    server = AnsweringServer()
    started = threading.Event()
    stop: Callable[[], object] = started.set

    async def run() -> None:
        nonlocal stop
        stopped = asyncio.Event()
        stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stopped.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(10)
        yield server
    finally:
        if tls is None:
            _ask_last(server.url)
        stop()
        thread.join(10)


def _ask_last(url: str) -> None:
    """Connections are accepted in turn: once this one is answered, no earlier one is still on its
    way, and the server closes all that it knows."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(65536):
            pass
