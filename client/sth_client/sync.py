"""The blocking client. Several threads may use one: every call has a connection of its own.

The methods are those of `sth_client.aio.Client`, which a test compares; what they send and read is
made by `calls` for both.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from types import TracebackType
from typing import Self, TypeVar

from sth_client import bodies, calls, results
from sth_client.calls import Call, Request, Scope
from sth_client.endpoint import parse_endpoint
from sth_client.pack import open_package
from sth_client.transport import Response, exchange

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
        response.set_silence(idle)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = self._response.read()
        except TimeoutError:
            data = b""
        if not data:
            self.close()
            raise StopIteration
        return data

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Client:
    """One broker's API. `url` as http://127.0.0.1:8000; `ca_file`: the only CA to trust for https;
    `connect_timeout` in seconds."""

    def __init__(
        self, url: str, *, token: str = "", ca_file: str = "", connect_timeout: float = 10.0
    ) -> None:
        self.endpoint = parse_endpoint(
            url, token=token, ca_file=ca_file, connect_timeout=connect_timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between calls; here so that both clients are used alike."""

    def version(self) -> results.Version:
        return self._perform(calls.version())

    def status(self) -> results.Status:
        return self._perform(calls.status())

    def load_check(self) -> results.LoadCheck:
        return self._perform(calls.load_check())

    def sequences(self) -> list[results.Sequence]:
        return self._perform(calls.sequences())

    def sequence(self, sequence_id: str) -> results.Sequence:
        return self._perform(calls.sequence(sequence_id))

    def upload(self, package: bodies.Package, *, name: str = "") -> str:
        """Upload a directory, a .tar.gz file or the bytes of one; its Sequence's id. `name`:
        instead of the package's own."""
        with open_package(package) as source:
            return self._perform(calls.upload(name=name), source)

    def delete_sequence(self, sequence_id: str) -> str:
        return self._perform(calls.delete_sequence(sequence_id))

    def start(
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
        return self._perform(call)

    def instances(self, *, ended: bool = False) -> list[results.Instance]:
        """Those that live or can still be read; with `ended` all that are on record."""
        return self._perform(calls.instances(ended=ended))

    def instance(self, instance_id: str) -> results.Instance:
        return self._perform(calls.instance(instance_id))

    def health(self, instance_id: str) -> results.Health:
        return self._perform(calls.health(instance_id))

    def stop(
        self, instance_id: str, *, timeout: float = 7.0, can_keepalive: bool = False
    ) -> results.Instance:
        """Ask a program to end; it is killed after `timeout` seconds."""
        return self._perform(calls.stop(instance_id, timeout=timeout, can_keepalive=can_keepalive))

    def kill(self, instance_id: str, *, remove_immediately: bool = False) -> results.Instance:
        return self._perform(calls.kill(instance_id, remove_immediately=remove_immediately))

    def send_input(
        self,
        instance_id: str,
        source: bodies.Source,
        *,
        content_type: str = calls.TEXT,
        end: bool = True,
    ) -> None:
        """Feed an Instance; returns when it has taken everything. `end`: its input ends there."""
        call = calls.send_input(instance_id, content_type=content_type, end=end)
        self._perform(call, source)

    def send_stdin(self, instance_id: str, source: bodies.Source, *, end: bool = True) -> None:
        self._perform(calls.send_stdin(instance_id, end=end), source)

    def output(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return self._stream(calls.read_stream(instance_id, "output"), idle)

    def stdout(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return self._stream(calls.read_stream(instance_id, "stdout"), idle)

    def stderr(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        return self._stream(calls.read_stream(instance_id, "stderr"), idle)

    def log(self, instance_id: str, *, idle: float | None = None) -> ByteStream:
        """Lines of ndjson: msg, level, ts in ms, from."""
        return self._stream(calls.read_stream(instance_id, "log"), idle)

    def topics(self) -> list[results.Topic]:
        return self._perform(calls.topics())

    def create_topic(self, name: str, *, content_type: str = calls.NDJSON) -> str:
        return self._perform(calls.create_topic(name, content_type=content_type))

    def delete_topic(self, name: str) -> None:
        self._perform(calls.delete_topic(name))

    def publish(
        self, name: str, source: bodies.Source, *, content_type: str = calls.NDJSON
    ) -> None:
        """Add records to a Topic; when it returns, they are stored."""
        self._perform(calls.publish(name, content_type=content_type), source)

    def subscribe(
        self, name: str, *, content_type: str = "", idle: float | None = None
    ) -> ByteStream:
        """Read a Topic as a plain reader; with no content type, whatever its type is."""
        return self._stream(calls.subscribe(name, content_type=content_type), idle)

    def hubs(self) -> list[results.Hub]:
        return self._perform(calls.hubs())

    def hub(self, hub_id: str) -> results.Hub:
        return self._perform(calls.hub(hub_id))

    def revoke_hub(self, hub_id: str) -> None:
        """Cut a Hub off for good; its machine may join again with a new token."""
        self._perform(calls.revoke_hub(hub_id))

    def make_join_token(
        self, *, ttl: float | None = None, uses: int | None = None, name: str = ""
    ) -> results.JoinToken:
        """`ttl` in seconds; what is left out is the broker's choice."""
        return self._perform(calls.make_join_token(ttl=ttl, uses=uses, name=name))

    def join_tokens(self) -> list[results.TokenInfo]:
        return self._perform(calls.join_tokens())

    def revoke_join_token(self, token_id: str) -> None:
        self._perform(calls.revoke_join_token(token_id))

    def make_api_token(
        self, *, scope: Scope = "run", ttl: float | None = None, name: str = ""
    ) -> results.ApiToken:
        """`ttl` in seconds; what is left out is the broker's choice."""
        return self._perform(calls.make_api_token(scope=scope, ttl=ttl, name=name))

    def api_tokens(self) -> list[results.TokenInfo]:
        return self._perform(calls.api_tokens())

    def revoke_api_token(self, token_id: str) -> None:
        self._perform(calls.revoke_api_token(token_id))

    def _perform(self, call: Call[Result], source: bodies.Source | None = None) -> Result:
        with exchange(self.endpoint, call.request, source) as response:
            return call.read(response.json())

    def _stream(self, request: Request, idle: float | None) -> ByteStream:
        response = exchange(self.endpoint, request)
        if response.status >= 300:
            with response:
                response.json()
        return ByteStream(response, idle)
