"""What both clients do alike: every test runs with the blocking and with the asynchronous one."""

import asyncio
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.client.answering import AnsweringServer
from tests.client.conftest import Driver, Drivers

from sth_protocol import errors

SEQUENCE = {
    "id": "s1",
    "name": "hello",
    "config": {"name": "hello", "version": "1.2", "language": "py"},
    "instances": ["i1"],
}
INSTANCE = {
    "id": "i1",
    "status": "completed",
    "sequence": {"id": "s1", "name": "hello"},
    "hub": "h1",
    "hubName": "edge",
    "created": "2026-01-02T03:04:05.678Z",
    "ended": "2026-01-02T03:04:06.678Z",
    "terminated": {"exitcode": 0, "reason": "Instance completed"},
}


def test_version_is_read(server: AnsweringServer, driver: Driver) -> None:
    answer = {"service": "@scramjet/host", "apiVersion": "v1", "version": "9", "build": "b", "x": 1}
    server.answer("GET /api/v1/version", answer)
    version = driver.call("version")
    assert (version.version, version.api_version, version.raw["x"]) == ("9", "v1", 1)


def test_requests_carry_the_token_and_take_no_compression(
    server: AnsweringServer, driver: Driver
) -> None:
    server.answer("GET /api/v1/status", {"cpm": {}})
    driver.call("status")
    headers = server.received[0].headers
    assert headers["Authorization"] == "Bearer a.b.c"
    assert headers["Accept-Encoding"] == "identity"


def test_load_check_is_read(server: AnsweringServer, driver: Driver) -> None:
    server.answer("GET /api/v1/load-check", {"avgLoad": 1.5, "memFree": 7})
    load = driver.call("load_check")
    assert (load.average_load, load.memory_free, load.memory_used) == (1.5, 7, 0)


def test_sequences_and_instances_are_read(server: AnsweringServer, driver: Driver) -> None:
    server.answer("GET /api/v1/sequences", [SEQUENCE])
    server.answer("GET /api/v1/sequence/s1", SEQUENCE)
    server.answer("GET /api/v1/instances", [INSTANCE])
    server.answer("GET /api/v1/instances?all=true", [INSTANCE, INSTANCE])
    server.answer("GET /api/v1/instance/i1", INSTANCE)
    [sequence] = driver.call("sequences")
    assert sequence == driver.call("sequence", "s1")
    assert (sequence.name, sequence.version, sequence.instances) == ("hello", "1.2", ("i1",))
    [instance] = driver.call("instances")
    assert instance == driver.call("instance", "i1")
    assert (instance.sequence_name, instance.hub_name) == ("hello", "edge")
    assert (instance.exit_code, instance.reason) == (0, "Instance completed")
    assert len(driver.call("instances", ended=True)) == 2


def test_start_sends_what_was_given_and_nothing_else(
    server: AnsweringServer, driver: Driver
) -> None:
    server.answer("POST /api/v1/sequence/s1/start", {"id": "i1", "message": "starting"})
    driver.call("start", "s1")
    started = driver.call("start", "s1", args=["a", 1], config={"k": 2}, hub="h", input_topic="t")
    assert started == "i1"
    assert [each.json() for each in server.received] == [
        {"args": [], "appConfig": {}},
        {"args": ["a", 1], "appConfig": {"k": 2}, "hub": "h", "inputTopic": "t"},
    ]


def test_stop_and_kill_send_objects(server: AnsweringServer, driver: Driver) -> None:
    server.answer("POST /api/v1/instance/i1/_stop", INSTANCE, status=202)
    server.answer("POST /api/v1/instance/i1/_kill", INSTANCE, status=202)
    assert driver.call("stop", "i1", timeout=1.5).status == "completed"
    driver.call("kill", "i1", remove_immediately=True)
    assert [each.json() for each in server.received] == [
        {"timeout": 1500, "canCallKeepalive": False},
        {"removeImmediately": True},
    ]


def test_operations_without_a_body_still_name_a_content_type(
    server: AnsweringServer, driver: Driver
) -> None:
    server.answer("DELETE /api/v1/sequence/s1", {"id": "s1"})
    assert driver.call("delete_sequence", "s1") == "s1"
    assert server.received[0].headers["Content-Type"] == "application/json"
    assert server.received[0].body == b""


def test_ids_cannot_leave_their_place_in_the_path(server: AnsweringServer, driver: Driver) -> None:
    for identity in ("a/../b", "..", "a?b#c", "ä b"):
        with pytest.raises(errors.NotFound, match="nothing here"):
            driver.call("instance", identity)


def make_package(path: Path) -> Path:
    path.mkdir()
    (path / "package.json").write_text('{"name": "p", "main": "main.py"}')
    (path / "main.py").write_text("def run(context, input): pass\n")
    return path


def test_upload_packs_a_directory_and_streams_it(
    server: AnsweringServer, driver: Driver, tmp_path: Path
) -> None:
    server.answer("POST /api/v1/sequence?name=a%20b", {"id": "s1"})
    assert driver.call("upload", make_package(tmp_path / "package"), name="a b") == "s1"
    [request] = server.received
    assert request.body[:2] == b"\x1f\x8b"
    assert request.headers["Transfer-Encoding"] == "chunked"
    assert "Expect" not in request.headers


SOURCES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"one two",
    "bytearray": lambda: bytearray(b"one two"),
    "file": lambda: io.BytesIO(b"one two"),
    "list": lambda: [b"one", b"", b" two"],
    "iterator": lambda: iter([b"one", memoryview(b" two")]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_input_is_taken_from_any_source(
    server: AnsweringServer, driver: Driver, source: str
) -> None:
    server.answer("POST /api/v1/instance/i1/input", None, status=202)
    driver.call("send_input", "i1", SOURCES[source](), content_type="text/x", end=False)
    [request] = server.received
    assert request.body == b"one two"
    assert request.headers["Content-Type"] == "text/x"
    assert request.headers["X-End-Stream"] == "false"


def test_stdin_is_octets_and_ends(server: AnsweringServer, driver: Driver) -> None:
    server.answer("POST /api/v1/instance/i1/stdin", None)
    driver.call("send_stdin", "i1", b"x")
    assert server.received[0].headers["Content-Type"] == "application/octet-stream"
    assert server.received[0].headers["X-End-Stream"] == "true"


def test_large_input_arrives_unchanged(server: AnsweringServer, driver: Driver) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
        server.keep(request, bytes(body))
        return web.Response()

    server.handlers["POST /api/v1/instance/i1/input"] = handler
    data = os.urandom(3_000_001)
    driver.call("send_input", "i1", data)
    assert server.received[0].body == data


def test_text_is_refused_as_a_source(server: AnsweringServer, driver: Driver) -> None:
    server.answer("POST /api/v1/instance/i1/input", None)
    for source in ("text", io.StringIO("text"), ["text"]):
        with pytest.raises(TypeError, match="bytes are needed, not"):
            driver.call("send_input", "i1", source)


def test_source_that_fails_cuts_the_body_and_raises_its_own_error(
    server: AnsweringServer, driver: Driver
) -> None:
    outcome: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            await request.read()
            outcome.append("whole")
        except Exception:
            outcome.append("cut")
        finally:
            server.seen.set()
        return web.Response()

    def failing() -> Iterator[bytes]:
        yield b"some"
        raise ZeroDivisionError("mine")

    server.handlers["POST /api/v1/instance/i1/input"] = handler
    with pytest.raises(ZeroDivisionError, match="mine"):
        driver.call("send_input", "i1", failing())
    assert server.seen.wait(10)
    assert outcome == ["cut"]


def test_error_before_the_body_is_read_is_the_error_told(
    server: AnsweringServer, driver: Driver
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"error": "no", "code": "CONFLICT", "message": "taken", "hint": "h"}, status=409
        )

    server.handlers["POST /api/v1/instance/i1/input"] = handler
    with pytest.raises(errors.Conflict, match="taken") as caught:
        driver.call("send_input", "i1", [bytes(65536)] * 50)
    assert caught.value.hint == "h"


def breaking_off_upload(server: AnsweringServer, *, after: int) -> None:
    """Answer 200 at once, take some bytes, then close without an end."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        count = 0
        while count < after:
            count += len(await request.content.readany())
        assert request.transport is not None
        request.transport.close()
        return response

    server.handlers["POST /api/v1/instance/i1/input"] = handler


def test_upload_that_the_broker_breaks_off_fails(server: AnsweringServer, driver: Driver) -> None:
    breaking_off_upload(server, after=4)
    with pytest.raises(errors.StreamFailed, match="broke off after 4 bytes were sent"):
        driver.call("send_input", "i1", b"data")


def test_upload_that_is_broken_off_on_its_way_fails(
    server: AnsweringServer, driver: Driver
) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65536)

    breaking_off_upload(server, after=100_000)
    with pytest.raises(errors.StreamFailed, match="broke off after"):
        driver.call("send_input", "i1", endless())


@pytest.mark.parametrize("name", ["output", "stdout", "stderr", "log"])
def test_streams_are_read_as_bytes(server: AnsweringServer, driver: Driver, name: str) -> None:
    server.stream(f"GET /api/v1/instance/i1/{name}", b"\xff\x00", b"\r\n")
    assert b"".join(driver.read(name, "i1")) == b"\xff\x00\r\n"


def test_stream_that_breaks_off_is_never_an_end(server: AnsweringServer, driver: Driver) -> None:
    server.stream("GET /api/v1/instance/i1/output", b"12345", breaks=True)
    with pytest.raises(errors.StreamFailed, match="broke off after 5 bytes"):
        driver.read("output", "i1")


def test_stream_of_something_unknown_is_an_error(server: AnsweringServer, driver: Driver) -> None:
    with pytest.raises(errors.NotFound, match="nothing here"):
        driver.read("output", "none")


def test_idle_stream_ends_when_asked_to(server: AnsweringServer, driver: Driver) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"now")
        await asyncio.Event().wait()
        return response

    server.handlers["GET /api/v1/topic/t"] = handler
    assert driver.read("subscribe", "t", idle=0.05) == [b"now"]


def test_topics(server: AnsweringServer, driver: Driver) -> None:
    topic = {"topicName": "t", "topic": "t", "contentType": "text/plain", "localProvider": ""}
    server.answer("GET /api/v1/topics", [topic])
    server.answer("POST /api/v1/topics", {"id": "t", "contentType": "text/plain"})
    server.answer("DELETE /api/v1/topics/t", {"message": "Topic t removed"})
    server.answer("POST /api/v1/topic/t", {})
    server.stream("GET /api/v1/topic/t", b"a\n")
    assert driver.call("create_topic", "t", content_type="text/plain") == "t"
    assert [(each.name, each.content_type) for each in driver.call("topics")] == [
        ("t", "text/plain")
    ]
    driver.call("publish", "t", b"a\n", content_type="text/plain")
    assert driver.read("subscribe", "t", content_type="text/plain") == [b"a\n"]
    driver.call("delete_topic", "t")
    assert server.received[0].json() == {"id": "t", "content-type": "text/plain"}
    assert server.received[2].headers["Content-Type"] == "text/plain"
    assert server.received[3].headers["Content-Type"] == "text/plain"


def test_hubs(server: AnsweringServer, driver: Driver) -> None:
    hub = {"id": "h1", "name": "edge", "space": "default", "status": "online", "lastSeen": ""}
    server.answer("GET /api/v1/hubs", [hub])
    server.answer("GET /api/v1/hub/h1", hub)
    server.answer("POST /api/v1/hub/h1/_revoke", {"id": "h1"})
    [found] = driver.call("hubs")
    assert found == driver.call("hub", "h1")
    assert (found.name, found.status) == ("edge", "online")
    driver.call("revoke_hub", "h1")


def test_join_tokens(server: AnsweringServer, driver: Driver) -> None:
    made = {"id": "k", "token": "sthj1_x", "command": "c", "expires": "e", "uses": 2, "warning": ""}
    server.answer("POST /api/v1/tokens/join", made)
    server.answer("GET /api/v1/tokens/join", [{"id": "k", "name": "n", "expires": "e"}])
    server.answer("DELETE /api/v1/tokens/join/k", {"id": "k"})
    token = driver.call("make_join_token", ttl=60.0, uses=2, name="n")
    assert (token.token, token.command, token.uses) == ("sthj1_x", "c", 2)
    assert "sthj1_x" not in repr(token)
    assert server.received[0].json() == {"ttlSeconds": 60, "uses": 2, "name": "n"}
    assert [each.id for each in driver.call("join_tokens")] == ["k"]
    driver.call("revoke_join_token", "k")


def test_api_tokens(server: AnsweringServer, driver: Driver) -> None:
    made = {"id": "k", "token": "e.y.j", "scope": "read", "expires": "e"}
    server.answer("POST /api/v1/tokens/api", made)
    server.answer("GET /api/v1/tokens/api", [{"id": "k", "name": "", "expires": "e"}])
    server.answer("DELETE /api/v1/tokens/api/k", {"id": "k"})
    token = driver.call("make_api_token", scope="read")
    assert token.token == "e.y.j"
    assert "e.y.j" not in repr(token)
    assert server.received[0].json() == {"scope": "read"}
    assert [each.id for each in driver.call("api_tokens")] == ["k"]
    driver.call("revoke_api_token", "k")


def test_refused_connection_is_unreachable(drivers: Drivers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    driver = drivers.make(f"http://127.0.0.1:{port}")
    with pytest.raises(errors.Unreachable, match=f"no broker listens at http://127.0.0.1:{port}"):
        driver.call("version")


def test_unknown_host_is_unreachable(drivers: Drivers) -> None:
    driver = drivers.make("http://nowhere.invalid:8000")
    with pytest.raises(errors.Unreachable, match=r"nowhere\.invalid"):
        driver.call("version")


def test_plain_http_behind_https_is_unreachable(drivers: Drivers, server: AnsweringServer) -> None:
    driver = drivers.make(server.url.replace("http:", "https:"))
    with pytest.raises(errors.Unreachable, match="no TLS with"):
        driver.call("version")


def test_silent_broker_is_out_of_time(drivers: Drivers) -> None:
    from sth_client import calls

    with socket.create_server(("127.0.0.1", 0)) as silent:
        driver = drivers.make(f"http://127.0.0.1:{silent.getsockname()[1]}")
        request = calls.Request("GET", "/version", (), timeout=0.05)
        call = calls.Call(request, lambda value: value)
        with pytest.raises(errors.TimedOut, match="no answer to GET /version"):
            driver.call("_perform", call)


def test_closed_without_an_answer_is_unreachable(server: AnsweringServer, driver: Driver) -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    server.handlers["GET /api/v1/version"] = leave
    with pytest.raises(errors.Unreachable, match="closed the connection without an answer"):
        driver.call("version")


def test_something_that_speaks_no_http_is_no_broker(drivers: Drivers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"220 mail ready\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        driver = drivers.make(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(errors.Unreachable, match="no broker of ours"):
            driver.call("version")
        thread.join()


def test_another_web_server_is_no_broker(server: AnsweringServer, driver: Driver) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    server.handlers["GET /api/v1/version"] = page
    with pytest.raises(errors.Unreachable, match="its answer is not JSON"):
        driver.call("version")
    server.answer("GET /api/v1/version", ["a", "list"])
    with pytest.raises(errors.Unreachable, match="not a version"):
        driver.call("version")


def test_redirect_is_not_followed(server: AnsweringServer, driver: Driver) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/api/v1/status")

    server.handlers["GET /api/v1/version"] = elsewhere
    with pytest.raises(errors.Unreachable, match="HTTP 302"):
        driver.call("version")
