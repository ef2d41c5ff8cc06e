"""Topics: list, make, delete, publish, read."""

import logging
import platform

from aiohttp import hdrs, web

from sth_broker.api import bodies, streaming
from sth_broker.api.answers import answer
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.topics import TopicInfo
from sth_protocol.errors import (
    BadName,
    BadRequest,
    Conflict,
    NotFound,
    SthError,
    UnsupportedMediaType,
)
from sth_protocol.ids import check_topic_name
from sth_protocol.model import Json

logger = logging.getLogger(__name__)

CONTENT_TYPES = ("text/x-ndjson", "application/x-ndjson", "text/plain", bodies.OCTETS)


async def list_topics(request: web.Request) -> web.Response:
    found = await services(request).topics.list(principal(request).space)
    return answer([_shown(each) for each in found])


async def make_topic(request: web.Request) -> web.Response:
    """`{"id", "content-type"}`; a Topic that is there already is refused."""
    body = await bodies.read_object(request)
    for key in ("id", "content-type"):
        if not isinstance(body.get(key), str) or not body[key]:
            raise BadRequest(f"Missing body param: {key}")
    name = _checked(body["id"])
    content_type = body["content-type"].strip().lower()
    if content_type not in CONTENT_TYPES:
        raise BadRequest("Unsupported content-type", hint=f"use one of {', '.join(CONTENT_TYPES)}")
    try:
        topic = await services(request).topics.create(principal(request).space, name, content_type)
    except Conflict:
        raise BadRequest("Topic with given id already exist") from None
    return answer(
        {
            "id": topic.name,
            "origin": {"id": platform.node(), "type": "hub"},
            "state": "flowing",
            "contentType": topic.content_type,
        }
    )


async def delete_topic(request: web.Request) -> web.Response:
    name = _checked(request.match_info["topic"])
    try:
        service = services(request)
        await service.background.shielded(service.topics.delete(principal(request).space, name))
    except NotFound as error:
        raise NotFound(f"Topic {name} not found", hint=error.hint) from None
    return answer({"message": f"Topic {name} removed"})


async def publish(request: web.Request) -> web.Response:
    """Store the records of the body; the answer comes when they are durable."""
    name = _checked(request.match_info["topic"])
    content_type = bodies.media_type(request)
    if content_type not in CONTENT_TYPES:
        raise BadRequest("Unsupported content-type", hint=f"send one of {', '.join(CONTENT_TYPES)}")
    service = services(request)
    # It goes on when the client breaks off: what came whole is stored.
    await service.background.shielded(
        service.topics.publish_stream(
            principal(request).space, name, content_type, bodies.chunks(request)
        )
    )
    return answer({})


async def read(request: web.Request) -> web.StreamResponse:
    """Give the records of a Topic, whatever its type unless one is asked for. A Topic that is not
    there is made, as with the original."""
    name = _checked(request.match_info["topic"])
    content_type = bodies.media_type(request)
    if content_type and content_type not in CONTENT_TYPES:
        raise UnsupportedMediaType(
            "Unsupported content-type", hint=f"ask for one of {', '.join(CONTENT_TYPES)}"
        )
    response = streaming.octets()
    async with services(request).topics.read_stream(
        principal(request).space, name, content_type or None
    ) as stream:
        response.headers[hdrs.CONTENT_TYPE] = stream.content_type
        try:
            writer = await response.prepare(request)
            assert writer is not None
            async for chunk in stream:
                await writer.write(chunk)
            await response.write_eof()
        except SthError as error:
            logger.info("%s broke off: %s", request.path, error)
            streaming.break_off(request)
    return response


def _checked(name: str) -> str:
    try:
        return check_topic_name(name)
    except BadName as error:
        raise BadName("Topic id incorrect format", hint=error.hint) from None


def _shown(topic: TopicInfo) -> Json:
    return {
        "contentType": topic.content_type,
        "localProvider": "",
        "topic": topic.name,
        "topicName": topic.name,
    }


ROUTES = (
    Route("GET", f"{BASE}/topics", list_topics, "read"),
    Route("POST", f"{BASE}/topics", make_topic, "run"),
    Route("DELETE", f"{BASE}/topics/{{topic}}", delete_topic, "run"),
    Route("GET", f"{BASE}/topic/{{topic}}", read, "read", streams=True),
    Route("POST", f"{BASE}/topic/{{topic}}", publish, "run", streams=True),
)
