"""HTTP by hand, for what no client library sends: half bodies, silence, and worse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.api import Api


class RawConnection:
    """One connection to the API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        async with asyncio.timeout(10):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = text.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        return int(first.split()[1]), headers

    async def rest(self) -> bytes:
        """Everything until the broker closes; a reset counts as a close."""
        received = bytearray()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    received += data
        return bytes(received)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connection(api: Api) -> AsyncIterator[RawConnection]:
    """A connection to the API of `api`."""
    reader, writer = await asyncio.open_connection(*api.address)
    raw = RawConnection(reader, writer)
    try:
        yield raw
    finally:
        await raw.close()


def request_head(api: Api, method: str, path: str, *headers: str) -> bytes:
    """The head of a request with the admin's token."""
    lines = [
        f"{method} /api/v1/{path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {api.token}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()
