"""Topics over HTTP, as the original's clients see them."""

import asyncio
from pathlib import Path

import pytest
from tests.support.api import Api, running_api
from tests.support.raw_http import connection, request_head

NDJSON = {"Content-Type": "application/x-ndjson"}
TEXT = {"Content-Type": "text/plain"}


async def publish(api: Api, topic: str, data: bytes, headers: dict[str, str] = NDJSON) -> None:
    assert await api.call("POST", f"topic/{topic}", data=data, headers=headers) == {}


async def read(api: Api, topic: str, count: int, headers: dict[str, str] | None = None) -> bytes:
    """The next `count` bytes that a plain reader gets."""
    async with api.http.get(f"/api/v1/topic/{topic}", headers=headers or {}) as response:
        assert response.status == 200
        return await response.content.readexactly(count)


async def test_topic_is_made_listed_and_deleted(api: Api) -> None:
    body = {"id": "cats", "content-type": "application/x-ndjson"}
    made = await api.call("POST", "topics", json=body)
    assert (made["id"], made["contentType"]) == ("cats", "application/x-ndjson")
    assert made["state"] == "flowing"
    assert made["origin"]["type"] == "hub"
    assert await api.call("GET", "topics") == [
        {
            "contentType": "application/x-ndjson",
            "localProvider": "",
            "topic": "cats",
            "topicName": "cats",
        }
    ]
    again = await api.call("POST", "topics", json=body, expect=400)
    assert again["error"] == "Topic with given id already exist"
    headers = {"Content-Type": "application/json"}
    answer = await api.call("DELETE", "topics/cats", headers=headers)
    assert answer == {"message": "Topic cats removed"}
    missing = await api.call("DELETE", "topics/cats", headers=headers, expect=404)
    assert missing["error"] == "Topic cats not found"
    assert await api.call("GET", "topics") == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Missing body param: id"),
        ({"id": 7, "content-type": "text/plain"}, "Missing body param: id"),
        ({"id": "a"}, "Missing body param: content-type"),
        ({"id": "a", "content-type": "text/html"}, "Unsupported content-type"),
        ({"id": "a b", "content-type": "text/plain"}, "Topic id incorrect format"),
        ({"id": "x" * 200, "content-type": "text/plain"}, "Topic id incorrect format"),
    ],
)
async def test_topic_with_wrong_fields_is_refused(
    api: Api, body: dict[str, object], message: str
) -> None:
    assert (await api.call("POST", "topics", json=body, expect=400))["error"] == message


async def test_what_was_published_before_anyone_listened_is_read(api: Api) -> None:
    await publish(api, "early", b'{"n":1}\n{"n":2}')
    assert await read(api, "early", 16) == b'{"n":1}\n{"n":2}\n'


async def test_every_reader_gets_everything_and_writers_do_not_wait_for_each_other(
    api: Api,
) -> None:
    path = "/api/v1/topic/all"
    async with api.http.get(path, headers=NDJSON) as one, api.http.get(path) as other:
        assert one.content_type == other.content_type == "application/x-ndjson"
        async with connection(api) as raw:
            # A writer that stays open.
            headers = ("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
            await raw.send(request_head(api, "POST", "topic/all", *headers) + b"2\r\n1\n\r\n")
            assert await one.content.readexactly(2) == b"1\n"
            await publish(api, "all", b"2\n")
            assert await one.content.readexactly(2) == b"2\n"
            await raw.send(b"2\r\n3\n\r\n0\r\n\r\n")
            assert (await raw.head())[0] == 200
        assert await one.content.readexactly(2) == b"3\n"
        assert await other.content.readexactly(6) == b"1\n2\n3\n"


async def test_published_is_durable_when_it_is_answered(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        await publish(api, "kept", b"1\n2\n")
    async with running_api(tmp_path) as api:
        assert await read(api, "kept", 4) == b"1\n2\n"


async def test_get_without_a_type_serves_any_topic(api: Api) -> None:
    await publish(api, "words", b"one two", TEXT)
    assert await read(api, "words", 7) == b"one two"


async def test_other_type_is_unsupported(api: Api) -> None:
    await publish(api, "words", b"one", TEXT)
    await api.call("POST", "topic/words", data=b"1\n", headers=NDJSON, expect=415)
    await api.call("GET", "topic/words", headers=NDJSON, expect=415)
    await api.call("GET", "topic/words", headers={"Content-Type": "image/png"}, expect=415)
    unknown = {"Content-Type": "image/png"}
    await api.call("POST", "topic/words", data=b"1", headers=unknown, expect=400)
    await api.call("POST", "topic/a%20b", data=b"1", headers=TEXT, expect=400)
    await api.call("GET", "topic/a%20b", expect=400)


async def test_cut_body_leaves_its_complete_lines_and_nothing_of_the_cut_one(api: Api) -> None:
    async with connection(api) as raw:
        headers = ("Content-Type: application/x-ndjson", "Content-Length: 100")
        await raw.send(request_head(api, "POST", "topic/cut", *headers) + b"1\n2\nhal")
        # Read as soon as they are there: a reader tells when they were taken.
        assert await read(api, "cut", 4) == b"1\n2\n"
    await publish(api, "cut", b"3\n")
    async with asyncio.timeout(10):
        async with api.http.get("/api/v1/topic/cut") as response:
            received = b""
            while not received.endswith(b"3\n"):
                received += await response.content.readany()
    assert b"hal" not in received


async def test_topics_of_another_space_are_others(api: Api) -> None:
    await publish(api, "same", b"1\n")
    other = {"Authorization": f"Bearer {await api.make_token('run', space='other')}"}
    await publish(api, "same", b"2\n", {**NDJSON, **other})
    assert await read(api, "same", 2) == b"1\n"
    assert await read(api, "same", 2, other) == b"2\n"
