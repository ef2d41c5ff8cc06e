"""The streams of an Instance over HTTP, against an agent that does as it is told."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.support.api import Api, running_api
from tests.support.raw_http import connection, request_head
from tests.support.scripted_agent import ScriptedAgent
from tests.support.waiting import until

from sth_protocol.errors import MethodNotAllowed, NotAcceptable, NotFound, UnsupportedMediaType

MIB = 1024 * 1024


@pytest.fixture
async def agent(api: Api) -> AsyncIterator[ScriptedAgent]:
    async with api.agent() as agent:
        yield agent


@pytest.mark.parametrize("stream", ["output", "stdout", "stderr", "log"])
async def test_reading_gives_what_the_program_writes_and_ends_with_it(
    api: Api, agent: ScriptedAgent, stream: str
) -> None:
    instance = await api.start()
    async with api.http.get(f"/api/v1/instance/{instance}/{stream}") as response:
        assert response.status == 200
        assert response.content_type == "application/octet-stream"
        assert response.headers["Transfer-Encoding"] == "chunked"
        channel = await agent.channel(stream=stream)
        assert channel.request == {"kind": "instance", "instance": instance, "stream": stream}
        await agent.send(channel, b"one\xff\x00")
        assert await response.content.readany() == b"one\xff\x00"
        await agent.send(channel, b"two")
        await agent.finish(channel)
        assert await response.content.read() == b"two"
    # Everything was consumed, and both sides are done with the channel.
    await agent.until(lambda: channel.number not in agent.mux.channels())
    assert channel.reset == ""


async def test_large_output_arrives_whole_under_flow_control(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    body = bytes(range(256)) * (5 * MIB // 256)
    async with api.http.get(f"/api/v1/instance/{instance}/output") as response:
        channel = await agent.channel(stream="output")
        await agent.send(channel, body)
        await agent.finish(channel)
        assert await response.read() == body


async def test_reset_in_the_middle_breaks_the_answer(api: Api, agent: ScriptedAgent) -> None:
    instance = await api.start()
    async with api.http.get(f"/api/v1/instance/{instance}/output") as response:
        channel = await agent.channel(stream="output")
        await agent.send(channel, b"before")
        await agent.break_off(channel, "STREAM_FAILED", "the machine burns")
        # What came before is delivered; what is missing is not taken for the end.
        assert await response.content.readany() == b"before"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_reset_breaks_an_answer_without_chunks_too(api: Api, agent: ScriptedAgent) -> None:
    instance = await api.start()
    async with connection(api) as raw:
        head = request_head(api, "GET", f"instance/{instance}/output")
        await raw.send(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await raw.head())[0] == 200
        channel = await agent.channel(stream="output")
        await agent.send(channel, b"before")
        assert await raw.reader.readexactly(6) == b"before"
        await agent.break_off(channel, "STREAM_FAILED")
        with pytest.raises(ConnectionResetError):
            await raw.reader.read()


async def test_lost_session_breaks_the_answer(api: Api, agent: ScriptedAgent) -> None:
    instance = await api.start()
    async with api.http.get(f"/api/v1/instance/{instance}/output") as response:
        await agent.channel(stream="output")
        await api.call("POST", f"hub/{agent.hub}/_revoke", json={})
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_stream_that_the_hub_does_not_have_is_not_found(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    agent.refuse = lambda request: NotFound("its streams are gone")
    answer = await api.call("GET", f"instance/{instance}/output", expect=404)
    assert answer["error"] == "its streams are gone"
    agent.refuse = lambda request: None
    async with api.http.get(f"/api/v1/instance/{instance}/output") as response:
        assert response.status == 200


async def test_reader_that_leaves_closes_the_channel_and_the_next_opens_another(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    async with api.http.get(f"/api/v1/instance/{instance}/stdout") as response:
        first = await agent.channel(stream="stdout")
        await agent.send(first, b"x")
        assert await response.content.readany() == b"x"
        response.close()
    await agent.until(lambda: first.reset)
    async with api.http.get(f"/api/v1/instance/{instance}/stdout") as response:
        second = await agent.channel(stream="stdout")
        await agent.finish(second)
        assert await response.content.read() == b""


async def test_several_readers_share_one_channel_and_all_get_what_is_new(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    path = f"/api/v1/instance/{instance}/output"
    async with api.http.get(path) as first:
        channel = await agent.channel(stream="output")
        await agent.send(channel, b"early ")
        assert await first.content.readany() == b"early "
        async with api.http.get(path) as second, api.http.get(path) as third:
            body = b"for all of you " * 20_000
            reading = [asyncio.create_task(each.content.read()) for each in (first, second, third)]
            for start in range(0, len(body), 10_000):
                await agent.send(channel, body[start : start + 10_000])
            await agent.finish(channel)
            assert await asyncio.gather(*reading) == [body] * 3
    assert [each.number for each in agent.channels.values()] == [channel.number]
    await agent.until(lambda: channel.number not in agent.mux.channels())


async def test_reader_that_leaves_does_not_disturb_the_others(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    path = f"/api/v1/instance/{instance}/output"
    async with api.http.get(path) as leaving, api.http.get(path) as staying:
        channel = await agent.channel(stream="output")
        leaving.close()
        for number in range(50):
            await agent.send(channel, b"%d\n" % number)
        await agent.finish(channel)
        expected = b"".join(b"%d\n" % number for number in range(50))
        assert await staying.content.read() == expected
    assert channel.reset == ""


async def test_reader_that_stands_still_holds_what_it_lacks_and_then_is_closed(
    tmp_path: Path,
) -> None:
    async with running_api(tmp_path, reader_stall=0.5) as api, api.agent() as agent:
        instance = await api.start()
        path = f"instance/{instance}/output"
        async with connection(api) as still:
            await still.send(request_head(api, "GET", path))
            await still.head()
            body = b"x" * (16 * MIB)
            async with api.http.get(f"/api/v1/{path}") as moving:
                channel = await agent.channel(stream="output")
                await agent.send(channel, body)
                await agent.finish(channel)
                # More than all buffers hold: it comes to its end only without the other one.
                assert await moving.content.read() == body
            assert len(await still.rest()) < len(body)
        assert len(agent.channels) == 1


async def test_reader_alone_may_stand_still_as_long_as_it_likes(tmp_path: Path) -> None:
    async with running_api(tmp_path, reader_stall=0.05) as api, api.agent() as agent:
        instance = await api.start()
        async with api.http.get(f"/api/v1/instance/{instance}/output") as response:
            channel = await agent.channel(stream="output")
            await agent.send(channel, b"x" * (16 * MIB))
            await agent.finish(channel)
            await until("the window is full", lambda: agent.mux.sendable(channel.number) <= 0)
            assert len(await response.content.read()) == 16 * MIB


@pytest.mark.parametrize(
    ("header", "status", "ends"),
    [(None, 200, True), ("true", 200, True), ("false", 202, False), ("True", 200, True)],
)
async def test_input_passes_on_the_body_and_says_whether_the_stream_ends(
    api: Api, agent: ScriptedAgent, header: str | None, status: int, ends: bool
) -> None:
    instance = await api.start()
    headers = {"Content-Type": "Text/Plain; charset=utf-8"}
    if header is not None:
        headers["X-End-Stream"] = header
    path = f"/api/v1/instance/{instance}/input"
    async with api.http.post(path, data=b"all of it", headers=headers) as response:
        assert response.status == status
        assert await response.read() == b""
    channel = await agent.channel(stream="input")
    assert channel.request["content_type"] == "text/plain"
    assert channel.request["end"] is ends
    assert (bytes(channel.received), channel.finished) == (b"all of it", True)


async def test_input_is_answered_before_its_body_and_ends_with_it(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    async with connection(api) as raw:
        headers = ("Content-Type: text/plain", "Transfer-Encoding: chunked", "Expect: 100-continue")
        await raw.send(request_head(api, "POST", f"instance/{instance}/input", *headers))
        assert (await raw.head())[0] == 100
        assert (await raw.head())[0] == 200
        channel = await agent.channel(stream="input")
        await raw.send(b"4\r\nping\r\n")
        await agent.until(lambda: channel.received == b"ping")
        await raw.send(b"4\r\npong\r\n")
        await agent.until(lambda: channel.received == b"pingpong")
        await raw.send(b"0\r\n\r\n")
        assert await raw.reader.readexactly(5) == b"0\r\n\r\n"


async def test_input_waits_for_the_program(api: Api, agent: ScriptedAgent) -> None:
    instance = await api.start()
    agent.consumes = False
    body = bytes(range(256)) * (4 * MIB // 256)
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/api/v1/instance/{instance}/input"
    sending = asyncio.create_task(send_all(api, path, body, headers))
    channel = await agent.channel(stream="input")
    # Credit bounds what is on its way to a program that takes nothing.
    await agent.until(lambda: len(channel.received) == 16 * 1024)
    agent.consumes = True
    agent.mux.consume(channel.number, len(channel.received))
    await agent.flush()
    await sending
    assert bytes(channel.received) == body


async def send_all(api: Api, path: str, body: bytes, headers: dict[str, str]) -> None:
    async with api.http.post(path, data=io.BytesIO(body), headers=headers) as response:
        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("input", {}, 406),
        ("stdin", {"Content-Type": "text/plain"}, 415),
        ("stdin", {}, 200),
        ("stdin", {"Content-Type": "application/octet-stream"}, 200),
    ],
)
async def test_content_type_of_a_body_is_checked(
    api: Api, agent: ScriptedAgent, path: str, headers: dict[str, str], status: int
) -> None:
    instance = await api.start()
    async with api.http.post(
        f"/api/v1/instance/{instance}/{path}",
        data=b"x",
        headers=headers,
        skip_auto_headers=["Content-Type"],
    ) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAcceptable("no type"), 406),
        (MethodNotAllowed("Input provided in other way"), 405),
        (UnsupportedMediaType("it takes text/plain"), 415),
        (NotFound("gone"), 404),
    ],
)
async def test_what_the_hub_refuses_comes_before_the_head(
    api: Api, agent: ScriptedAgent, error: Exception, status: int
) -> None:
    instance = await api.start()
    agent.refuse = lambda request: error  # type: ignore[assignment,return-value]
    headers = {"Content-Type": "text/plain"}
    answer = await api.call(
        "POST", f"instance/{instance}/input", data=b"x", headers=headers, expect=status
    )
    assert answer["error"] == str(error)


async def test_input_that_the_program_no_longer_takes_breaks_the_connection(
    api: Api, agent: ScriptedAgent
) -> None:
    instance = await api.start()
    async with connection(api) as raw:
        headers = ("Content-Type: text/plain", "Transfer-Encoding: chunked")
        await raw.send(request_head(api, "POST", f"instance/{instance}/input", *headers))
        await raw.head()
        channel = await agent.channel(stream="input")
        await agent.break_off(channel, "STREAM_FAILED", "the program has ended")
        with contextlib.suppress(ConnectionError):
            while True:
                await raw.send(b"4\r\nmore\r\n")
                await asyncio.sleep(0)
        assert b"0\r\n\r\n" not in await raw.rest()


async def test_many_streams_at_once(api: Api, agent: ScriptedAgent) -> None:
    sequence = await api.upload()
    instances = await asyncio.gather(*(api.start(sequence) for _ in range(8)))

    async def talk(instance: str, number: int) -> None:
        path = f"/api/v1/instance/{instance}"
        async with api.http.get(f"{path}/output") as response:
            channel = await agent.channel(instance=instance, stream="output")
            body = b"%d" % number * 100_000
            headers = {"Content-Type": "text/plain"}
            async with api.http.post(f"{path}/input", data=body, headers=headers) as sent:
                await sent.read()
            source = await agent.channel(instance=instance, stream="input")
            await agent.send(channel, bytes(source.received))
            await agent.finish(channel)
            assert await response.read() == body

    await asyncio.gather(*(talk(each, number) for number, each in enumerate(instances)))
