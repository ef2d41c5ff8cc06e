"""Every request of the API, made once for both clients. Pure: arguments in, a `Call` out.

A `Call` is a request and the reader of its answer; a `Download` is a request whose answer is a
stream. The clients add nothing but the sending.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from urllib.parse import quote

from sth_client import results

Result = TypeVar("Result")
Headers = tuple[tuple[str, str], ...]
Scope = Literal["read", "run", "admin"]

JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
NDJSON = "application/x-ndjson"

ANSWER_TIMEOUT = 30.0
# A start waits until the program is loaded, a first one also until its package has travelled: the
# broker gives up first.
START_TIMEOUT = 660.0


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is below the API's prefix. `body`: None for none, or when it is streamed beside.
    `timeout`: seconds without any answer, None for an exchange that may rightly take for ever."""

    method: str
    path: str
    headers: Headers
    body: bytes | None = None
    timeout: float | None = ANSWER_TIMEOUT

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    request: Request
    read: Callable[[object], Result]


def version() -> Call[results.Version]:
    return _get("/version", results.Version.from_json)


def status() -> Call[results.Status]:
    return _get("/status", results.Status.from_json)


def load_check() -> Call[results.LoadCheck]:
    return _get("/load-check", results.LoadCheck.from_json)


def sequences() -> Call[list[results.Sequence]]:
    return _get("/sequences", results.list_of(results.Sequence.from_json))


def sequence(sequence_id: str) -> Call[results.Sequence]:
    return _get(f"/sequence/{_segment(sequence_id)}", results.Sequence.from_json)


def upload(*, name: str = "") -> Call[str]:
    """The package is streamed beside it. `name`: instead of the package's own."""
    path = f"/sequence?name={quote(name, safe='')}" if name else "/sequence"
    return Call(Request("POST", path, _headers(OCTETS), timeout=None), results.id_of)


def delete_sequence(sequence_id: str) -> Call[str]:
    return _operate("DELETE", f"/sequence/{_segment(sequence_id)}", results.id_of)


def start(
    sequence_id: str,
    *,
    args: Sequence[object] = (),
    config: Mapping[str, object] | None = None,
    hub: str = "",
    input_topic: str = "",
    output_topic: str = "",
    instance_id: str = "",
) -> Call[str]:
    body: dict[str, object] = {"args": list(args), "appConfig": dict(config or {})}
    named = {
        "hub": hub,
        "inputTopic": input_topic,
        "outputTopic": output_topic,
        "instanceId": instance_id,
    }
    body |= {key: value for key, value in named.items() if value}
    path = f"/sequence/{_segment(sequence_id)}/start"
    return _operate("POST", path, results.id_of, body, timeout=START_TIMEOUT)


def instances(*, ended: bool = False) -> Call[list[results.Instance]]:
    path = "/instances?all=true" if ended else "/instances"
    return _get(path, results.list_of(results.Instance.from_json))


def instance(instance_id: str) -> Call[results.Instance]:
    return _get(f"/instance/{_segment(instance_id)}", results.Instance.from_json)


def health(instance_id: str) -> Call[results.Health]:
    return _get(f"/instance/{_segment(instance_id)}/health", results.Health.from_json)


def stop(
    instance_id: str, *, timeout: float = 7.0, can_keepalive: bool = False
) -> Call[results.Instance]:
    """`timeout`: seconds that the program is given before it is killed."""
    body = {"timeout": round(timeout * 1000), "canCallKeepalive": can_keepalive}
    path = f"/instance/{_segment(instance_id)}/_stop"
    read = results.Instance.from_json
    return _operate("POST", path, read, body, timeout=timeout + 2 * ANSWER_TIMEOUT)


def kill(instance_id: str, *, remove_immediately: bool = False) -> Call[results.Instance]:
    body = {"removeImmediately": remove_immediately}
    path = f"/instance/{_segment(instance_id)}/_kill"
    return _operate("POST", path, results.Instance.from_json, body)


def send_input(instance_id: str, *, content_type: str, end: bool) -> Call[None]:
    """The bytes are streamed beside it."""
    return _stream_up(f"/instance/{_segment(instance_id)}/input", content_type, end=end)


def send_stdin(instance_id: str, *, end: bool) -> Call[None]:
    """The bytes are streamed beside it."""
    return _stream_up(f"/instance/{_segment(instance_id)}/stdin", OCTETS, end=end)


def read_stream(instance_id: str, stream: Literal["output", "stdout", "stderr", "log"]) -> Request:
    return _stream_down(f"/instance/{_segment(instance_id)}/{stream}")


def topics() -> Call[list[results.Topic]]:
    return _get("/topics", results.list_of(results.Topic.from_json))


def create_topic(name: str, *, content_type: str = NDJSON) -> Call[str]:
    body = {"id": name, "content-type": content_type}
    return _operate("POST", "/topics", results.id_of, body)


def delete_topic(name: str) -> Call[None]:
    return _operate("DELETE", f"/topics/{_segment(name)}", results.nothing_of)


def publish(name: str, *, content_type: str) -> Call[None]:
    """The records are streamed beside it; the answer says that they are stored."""
    request = Request("POST", f"/topic/{_segment(name)}", _headers(content_type), timeout=None)
    return Call(request, results.nothing_of)


def subscribe(name: str, *, content_type: str = "") -> Request:
    return _stream_down(f"/topic/{_segment(name)}", content_type)


def hubs() -> Call[list[results.Hub]]:
    return _get("/hubs", results.list_of(results.Hub.from_json))


def hub(hub_id: str) -> Call[results.Hub]:
    return _get(f"/hub/{_segment(hub_id)}", results.Hub.from_json)


def revoke_hub(hub_id: str) -> Call[None]:
    return _operate("POST", f"/hub/{_segment(hub_id)}/_revoke", results.nothing_of, {})


def make_join_token(
    *, ttl: float | None = None, uses: int | None = None, name: str = ""
) -> Call[results.JoinToken]:
    body = _token_body(ttl, name)
    if uses is not None:
        body["uses"] = uses
    return _operate("POST", "/tokens/join", results.JoinToken.from_json, body)


def join_tokens() -> Call[list[results.TokenInfo]]:
    return _get("/tokens/join", results.list_of(results.TokenInfo.from_json))


def revoke_join_token(token_id: str) -> Call[None]:
    return _operate("DELETE", f"/tokens/join/{_segment(token_id)}", results.nothing_of)


def make_api_token(
    *, scope: Scope = "run", ttl: float | None = None, name: str = ""
) -> Call[results.ApiToken]:
    body = _token_body(ttl, name) | {"scope": scope}
    return _operate("POST", "/tokens/api", results.ApiToken.from_json, body)


def api_tokens() -> Call[list[results.TokenInfo]]:
    return _get("/tokens/api", results.list_of(results.TokenInfo.from_json))


def revoke_api_token(token_id: str) -> Call[None]:
    return _operate("DELETE", f"/tokens/api/{_segment(token_id)}", results.nothing_of)


def _token_body(ttl: float | None, name: str) -> dict[str, object]:
    body: dict[str, object] = {"name": name} if name else {}
    if ttl is not None:
        body["ttlSeconds"] = round(ttl)
    return body


def _get(path: str, read: Callable[[object], Result]) -> Call[Result]:
    return Call(Request("GET", path, (("Accept", JSON),)), read)


def _operate(
    method: str,
    path: str,
    read: Callable[[object], Result],
    body: Mapping[str, object] | None = None,
    *,
    timeout: float = ANSWER_TIMEOUT,
) -> Call[Result]:
    # The original wants the content type even where there is no body.
    encoded = b"" if body is None else json.dumps(body).encode()
    return Call(Request(method, path, _headers(JSON), encoded, timeout), read)


def _stream_up(path: str, content_type: str, *, end: bool) -> Call[None]:
    headers = (*_headers(content_type), ("X-End-Stream", "true" if end else "false"))
    return Call(Request("POST", path, headers, timeout=None), results.nothing_of)


def _stream_down(path: str, content_type: str = "") -> Request:
    headers: Headers = (("Accept", "*/*"),)
    if content_type:
        headers += (("Content-Type", content_type),)
    return Request("GET", path, headers, timeout=ANSWER_TIMEOUT)


def _headers(content_type: str) -> Headers:
    return (("Accept", JSON), ("Content-Type", content_type))


def _segment(text: str) -> str:
    """One segment of a path. "." and ".." would be resolved away by what stands between."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")
