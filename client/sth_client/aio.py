"""The asynchronous client, on aiohttp. One connection pool a client: use it as a context manager.

The methods are those of `sth_client.sync.Client`, which a test compares; what they send and read is
made by `calls` for both.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from collections.abc import Sequence as Items
from types import TracebackType
from typing import Self, TypeVar

from sth_client import bodies, calls, results
from sth_client.aio_transport import Response, Transport
from sth_client.calls import Call, Request, Scope
from sth_client.endpoint import parse_endpoint
from sth_client.pack import open_package

Result = TypeVar("Result")


class ByteStream:
    """Bytes from the broker, as they come; a context manager, which closes the connection.

    It ends only where the stream ended: one that breaks off raises StreamFailed. With `idle` it
    also ends after that many seconds without a byte.
    """

    def __init__(self, response: Response, idle: float | None) -> None:
        self.content_type = response.content_type
        self._response = response
        self._idle = idle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                data = await self._response.read()
        except TimeoutError:
            data = b""
        if not data:
            await self.close()
            raise StopAsyncIteration
        return data

    async def close(self) -> None:
        self._response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Client:
    """One broker's API. `url` as http://127.0.0.1:8000; `ca_file`: the only CA to trust for https;
    `connect_timeout` in seconds."""

    def __init__(
        self, url: str, *, token: str = "", ca_file: str = "", connect_timeout: float = 10.0
    ) -> None:
        self.endpoint = parse_endpoint(
            url, token=token, ca_file=ca_file, connect_timeout=connect_timeout
        )
        self._transport = Transport(self.endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, those of open streams too."""
        await self._transport.close()

    async def version(self) -> results.Version:
        return await self._perform(calls.version())

    async def status(self) -> results.Status:
        return await self._perform(calls.status())

    async def load_check(self) -> results.LoadCheck:
        return await self._perform(calls.load_check())

    async def sequences(self) -> list[results.Sequence]:
        return await self._perform(calls.sequences())

    async def sequence(self, sequence_id: str) -> results.Sequence:
        return await self._perform(calls.sequence(sequence_id))

    async def upload(self, package: bodies.Package, *, name: str = "") -> str:
        """Upload a directory, a .tar.gz file or the bytes of one; its Sequence's id. `name`:
        instead of the package's own."""
        with contextlib.ExitStack() as opened:
            # Packing reads files and compresses: too long for an event loop.
            source = await asyncio.to_thread(opened.enter_context, open_package(package))
            return await self._perform(calls.upload(name=name), source)

    async def delete_sequence(self, sequence_id: str) -> str:
        return await self._perform(calls.delete_sequence(sequence_id))

    async def start(
        self,
        sequence_id: str,
        *,
        args: Items[object] = (),
        config: Mapping[str, object] | None = None,
        hub: str = "",
        input_topic: str = "",
        output_topic: str = "",
        instance_id: str = "",
    ) -> str:
        """Start a Sequence by id or name; the id of its Instance, once the program is loaded."""
        call = calls.start(
            sequence_id,
            args=args,
            config=config,
            hub=hub,
            input_topic=input_topic,
            output_topic=output_topic,
            instance_id=instance_id,
        )
        return await self._perform(call)

    async def instances(self, *, ended: bool = False) -> list[results.Instance]:
        """Those that live or can still be read; with `ended` all that are on record."""
        return await self._perform(calls.instances(ended=ended))

    async def instance(self, instance_id: str) -> results.Instance:
        return await self._perform(calls.instance(instance_id))

    async def health(self, instance_id: str) -> results.Health:
        return await self._perform(calls.health(instance_id))

    async def stop(
        self, instance_id: str, *, timeout: float = 7.0, can_keepalive: bool = False
    ) -> results.Instance:
        """Ask a program to end; it is killed after `timeout` seconds."""
        return await self._perform(
            calls.stop(instance_id, timeout=timeout, can_keepalive=can_keepalive)
        )

    async def kill(self, instance_id: str, *, remove_immediately: bool = False) -> results.Instance:
        return await self._perform(calls.kill(instance_id, remove_immediately=remove_immediately))

    async def send_input(
        self,
        instance_id: str,
        source: bodies.AsyncSource,
        *,
        content_type: str = calls.TEXT,
        end: bool = True,
    ) -> None:
        """Feed an Instance; returns when it has taken everything. `end`: its input ends there."""
        call = calls.send_input(instance_id, content_type=content_type, end=end)
        await self._perform(call, source)

    async def send_stdin(
        self, instance_id: str, source: bodies.AsyncSource, *, end: bool = True
    ) -> None:
        await self._perform(calls.send_stdin(instance_id, end=end), source)

    async def output(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return await self._stream(calls.read_stream(instance_id, "output"), idle)

    async def stdout(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return await self._stream(calls.read_stream(instance_id, "stdout"), idle)

    async def stderr(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return await self._stream(calls.read_stream(instance_id, "stderr"), idle)

    async def log(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        """Lines of ndjson: msg, level, ts in ms, from."""
        return await self._stream(calls.read_stream(instance_id, "log"), idle)

    async def topics(self) -> list[results.Topic]:
        return await self._perform(calls.topics())

    async def create_topic(self, name: str, *, content_type: str = calls.NDJSON) -> str:
        return await self._perform(calls.create_topic(name, content_type=content_type))

    async def delete_topic(self, name: str) -> None:
        await self._perform(calls.delete_topic(name))

    async def publish(
        self, name: str, source: bodies.AsyncSource, *, content_type: str = calls.NDJSON
    ) -> None:
        """Add records to a Topic; when it returns, they are stored."""
        await self._perform(calls.publish(name, content_type=content_type), source)

    async def subscribe(
        self, name: str, *, content_type: str = "", idle: float | None = None
    ) -> ByteStream:
        """Read a Topic as a plain reader; with no content type, whatever its type is."""
        return await self._stream(calls.subscribe(name, content_type=content_type), idle)

    async def hubs(self) -> list[results.Hub]:
        return await self._perform(calls.hubs())

    async def hub(self, hub_id: str) -> results.Hub:
        return await self._perform(calls.hub(hub_id))

    async def revoke_hub(self, hub_id: str) -> None:
        """Cut a Hub off for good; its machine may join again with a new token."""
        await self._perform(calls.revoke_hub(hub_id))

    async def make_join_token(
        self, *, ttl: float | None = None, uses: int | None = None, name: str = ""
    ) -> results.JoinToken:
        """`ttl` in seconds; what is left out is the broker's choice."""
        return await self._perform(calls.make_join_token(ttl=ttl, uses=uses, name=name))

    async def join_tokens(self) -> list[results.TokenInfo]:
        return await self._perform(calls.join_tokens())

    async def revoke_join_token(self, token_id: str) -> None:
        await self._perform(calls.revoke_join_token(token_id))

    async def make_api_token(
        self, *, scope: Scope = "run", ttl: float | None = None, name: str = ""
    ) -> results.ApiToken:
        """`ttl` in seconds; what is left out is the broker's choice."""
        return await self._perform(calls.make_api_token(scope=scope, ttl=ttl, name=name))

    async def api_tokens(self) -> list[results.TokenInfo]:
        return await self._perform(calls.api_tokens())

    async def revoke_api_token(self, token_id: str) -> None:
        await self._perform(calls.revoke_api_token(token_id))

    async def _perform(
        self, call: Call[Result], source: bodies.AsyncSource | None = None
    ) -> Result:
        return call.read(await self._transport.exchange(call.request, source))

    async def _stream(self, request: Request, idle: float | None) -> ByteStream:
        return ByteStream(await self._transport.open(request), idle)
