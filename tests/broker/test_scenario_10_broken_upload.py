"""Scenario 10: a broken upload is not the end of a file; a partial package is not registered."""

from pathlib import Path

import pytest
from tests.support import packages
from tests.support.api import Api
from tests.support.raw_http import connection, request_head
from tests.support.waiting import until

PACKAGE = packages.python(packages.LINES)


def unfinished(api: Api) -> list[Path]:
    return list((api.broker.directory.store / "packages" / "unfinished").iterdir())


async def assert_nothing_registered(api: Api) -> None:
    await until("the file is gone", lambda: not unfinished(api))
    assert await api.call("GET", "sequences") == []
    assert await api.broker.services.packages.list() == []


@pytest.mark.parametrize("method", ["close", "abort"])
async def test_scenario_10_upload_shorter_than_its_length_registers_nothing(
    api: Api, method: str
) -> None:
    async with connection(api) as raw:
        length = f"Content-Length: {len(PACKAGE) + 1}"
        # The whole package is there, and one byte of the body is missing.
        await raw.send(request_head(api, "POST", "sequence", length) + PACKAGE)
        await until("the upload has begun", lambda: unfinished(api))
        if method == "abort":
            raw.writer.transport.abort()
        else:
            raw.writer.close()
        await assert_nothing_registered(api)


async def test_scenario_10_chunked_upload_without_end_registers_nothing(api: Api) -> None:
    async with connection(api) as raw:
        head = request_head(api, "POST", "sequence", "Transfer-Encoding: chunked")
        await raw.send(head + f"{len(PACKAGE):x}\r\n".encode() + PACKAGE + b"\r\n")
        await until("the upload has begun", lambda: unfinished(api))
        raw.writer.close()
        await assert_nothing_registered(api)


async def test_scenario_10_chunk_that_is_none_is_a_bad_request(api: Api) -> None:
    async with connection(api) as raw:
        head = request_head(api, "POST", "sequence", "Transfer-Encoding: chunked")
        await raw.send(head + f"{len(PACKAGE):x}\r\n".encode() + PACKAGE + b"\r\nzzz\r\n")
        status, _ = await raw.head()
        assert status == 400
        await assert_nothing_registered(api)


async def test_scenario_10_cut_input_is_not_an_end(api: Api) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        async with connection(api) as raw:
            path = f"instance/{instance}/input"
            headers = ("Content-Type: text/plain", "Content-Length: 100")
            await raw.send(request_head(api, "POST", path, *headers) + b"half\n")
            assert (await raw.head())[0] == 200
            channel = await agent.channel(stream="input")
            await agent.until(lambda: channel.received == b"half\n")
            raw.writer.close()
            await agent.until(lambda: channel.reset)
        assert (channel.reset, channel.finished) == ("BODY_CUT", False)


async def test_scenario_10_input_with_a_chunk_that_is_none_is_broken_off(api: Api) -> None:
    async with api.agent() as agent:
        instance = await api.start()
        async with connection(api) as raw:
            path = f"instance/{instance}/input"
            headers = ("Content-Type: text/plain", "Transfer-Encoding: chunked")
            await raw.send(request_head(api, "POST", path, *headers) + b"5\r\nhalf\n\r\n")
            assert (await raw.head())[0] == 200
            channel = await agent.channel(stream="input")
            await agent.until(lambda: channel.received == b"half\n")
            await raw.send(b"zzz\r\n")
            await agent.until(lambda: channel.reset)
            assert b"0\r\n\r\n" not in await raw.reader.read()
        assert (channel.reset, channel.finished) == ("BODY_CUT", False)


async def test_scenario_10_whole_upload_after_a_broken_one_is_registered(api: Api) -> None:
    async with connection(api) as raw:
        await raw.send(request_head(api, "POST", "sequence", "Content-Length: 9") + b"half")
        await until("the upload has begun", lambda: unfinished(api))
    await assert_nothing_registered(api)
    await api.upload(PACKAGE)
    assert len(await api.call("GET", "sequences")) == 1
    assert unfinished(api) == []


async def test_upload_that_expects_100_gets_it_once_it_is_admitted(api: Api) -> None:
    expect = "Expect: 100-continue"
    async with connection(api) as raw:
        length = f"Content-Length: {len(PACKAGE)}"
        await raw.send(request_head(api, "POST", "sequence", length, expect))
        assert (await raw.head())[0] == 100
        await raw.send(PACKAGE)
        assert (await raw.head())[0] == 200
    async with connection(api) as raw:
        head = request_head(api, "POST", "sequence", "Content-Length: 5", expect)
        await raw.send(head.replace(b"Bearer ", b"Bearer x"))
        # The error comes instead of the invitation.
        assert (await raw.head())[0] == 401
    async with connection(api) as raw:
        await raw.send(request_head(api, "POST", "sequence", "Content-Length: 5", "Expect: coffee"))
        assert (await raw.head())[0] == 417
