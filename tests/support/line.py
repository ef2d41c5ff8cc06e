"""A TCP line to somewhere, which a test can cut, or silence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Line:
    """`port`: dial here to reach the target. `connections`: how many were made so far."""

    port: int = 0
    connections: int = 0
    is_silent: bool = False
    is_closed: bool = False
    _transports: set[asyncio.WriteTransport] = field(default_factory=set)

    def cut(self) -> None:
        """End every connection at once, as a router that restarts."""
        for each in tuple(self._transports):
            each.abort()

    def add(self, transport: asyncio.WriteTransport) -> None:
        self._transports.add(transport)

    def drop(self, transport: asyncio.WriteTransport) -> None:
        self._transports.discard(transport)


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A line to a port of loopback. `is_silent` swallows what travels; `is_closed` turns new
    connections away."""
    line = Line()
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not line.is_silent:
                    writer.write(data)
                    await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        line.add(writer.transport)
        with contextlib.suppress(OSError):
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", port)
            ends.append(target_writer)
            line.add(target_writer.transport)
            ways = [
                asyncio.create_task(copy(reader, target_writer)),
                asyncio.create_task(copy(target_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        for end in ends:
            line.drop(end.transport)
            end.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.connections += 1
        if line.is_closed:
            writer.transport.abort()
            return
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.cut()
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
