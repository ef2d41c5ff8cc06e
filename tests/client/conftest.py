"""What the tests of the client share."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from tests.client.answering import AnsweringServer, answering

from sth_client import Client, aio


class Driver(Protocol):
    """Either client, used without asyncio."""

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        """Call a method and give its result."""

    def read(self, method: str, /, *arguments: Any, **options: Any) -> list[bytes]:
        """Open a stream and read it to its end."""


@dataclass(frozen=True)
class BlockingDriver:
    client: Client

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        return getattr(self.client, method)(*arguments, **options)

    def read(self, method: str, /, *arguments: Any, **options: Any) -> list[bytes]:
        with self.call(method, *arguments, **options) as stream:
            return list(stream)


@dataclass(frozen=True)
class AsyncDriver:
    client: aio.Client
    runner: asyncio.Runner

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        return self.runner.run(getattr(self.client, method)(*arguments, **options))

    def read(self, method: str, /, *arguments: Any, **options: Any) -> list[bytes]:
        async def collect() -> list[bytes]:
            async with await getattr(self.client, method)(*arguments, **options) as stream:
                return [data async for data in stream]

        return self.runner.run(collect())


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with answering() as running:
        yield running


@pytest.fixture(params=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Drivers:
    """Makes drivers of one kind and closes them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        self._opened: list[aio.Client] = []

    def make(self, url: str, **options: Any) -> Driver:
        if self.kind == "blocking":
            return BlockingDriver(Client(url, **options))
        client = aio.Client(url, **options)
        self._opened.append(client)
        return AsyncDriver(client, self._runner)

    def close(self) -> None:
        for client in self._opened:
            self._runner.run(client.close())
        self._runner.close()


@pytest.fixture
def drivers(kind: str) -> Iterator[Drivers]:
    made = Drivers(kind)
    yield made
    made.close()


@pytest.fixture
def driver(drivers: Drivers, server: AnsweringServer) -> Driver:
    """Either client, talking to `server` with the token "a.b.c"."""
    return drivers.make(server.url, token="a.b.c")
