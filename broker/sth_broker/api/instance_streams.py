"""The streams of an Instance over HTTP: input and stdin up; output, stdout, stderr and log down.

Bytes only pass through: for a chunk there is one read, one write and one report of consumption.
An answer has its head before its body's time, so what fails later breaks the connection.
"""

import asyncio
import logging
from functools import partial

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from sth_broker.api import bodies, streaming
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.channel import Channel
from sth_broker.instance_record import Instance
from sth_protocol.errors import BodyCut, NotAcceptable, SthError

logger = logging.getLogger(__name__)

DOWN = ("output", "stdout", "stderr", "log")


async def read_stream(request: web.Request) -> web.StreamResponse:
    """Give what the Instance writes from the oldest byte that no reader has taken."""
    service = services(request)
    instance = _instance(request)
    reader = await service.readers.join(
        service.control.link(instance),
        (instance.space, instance.instance, request.path.rpartition("/")[2]),
        on_stall=partial(streaming.abort, request),
    )
    response = streaming.octets()
    try:
        writer = await response.prepare(request)
        assert writer is not None
        while data := await reader.read():
            await writer.write(data)
            reader.consumed(len(data))
        await response.write_eof()
    except SthError as error:
        logger.info("%s broke off: %s", request.path, error)
        streaming.break_off(request)
    finally:
        reader.close()
    return response


async def write_input(request: web.Request) -> web.StreamResponse:
    if not bodies.media_type(request):
        raise NotAcceptable(
            "Content-Type must be defined", hint="such as text/plain or application/x-ndjson"
        )
    return await _write(request, "input", bodies.media_type(request))


async def write_stdin(request: web.Request) -> web.StreamResponse:
    bodies.require_octets(request)
    return await _write(request, "stdin", bodies.OCTETS)


async def _write(request: web.Request, stream: str, content_type: str) -> web.StreamResponse:
    """Pass the body on. The answer begins when the Hub has accepted it and ends when the program
    has all of it: 200 if the stream ends with this body, else 202."""
    instance = _instance(request)
    end = bodies.ends_stream(request, default=True)
    channel = (
        await services(request)
        .control.link(instance)
        .open(
            {
                "kind": "instance",
                "instance": instance.instance,
                "stream": stream,
                "content_type": content_type,
                "end": end,
            }
        )
    )
    response = streaming.octets(200 if end else 202)
    try:
        await bodies.invite_body(request)
        await response.prepare(request)
        await _pass_on(request, channel)
        await response.write_eof()
    except SthError as error:
        logger.info("%s broke off: %s", request.path, error)
        streaming.break_off(request)
    except RequestPayloadError as error:
        channel.reset(BodyCut.code, f"the body broke off: {error}")
        streaming.break_off(request)
    except BaseException:
        # The client is gone, or the broker stops: not an end of the stream.
        channel.reset(BodyCut.code, "the body ended before its end")
        raise
    return response


async def _pass_on(request: web.Request, channel: Channel) -> None:
    content = request.content
    # A sender that says nothing for a while is told, too, that the program takes no more.
    watching = asyncio.create_task(_fail_with(channel, content))
    try:
        while data := await content.readany():
            await channel.write(data)
    finally:
        watching.cancel()
    channel.finish()
    # The Hub finishes when the program has everything.
    while data := await channel.read():
        channel.consume(len(data))


async def _fail_with(channel: Channel, content: StreamReader) -> None:
    await channel.wait_closed()
    if channel.error is not None:
        content.set_exception(channel.error)


def _instance(request: web.Request) -> Instance:
    return services(request).instances.get(principal(request).space, request.match_info["id"])


ROUTES = (
    *(
        Route("GET", f"{BASE}/instance/{{id}}/{stream}", read_stream, "read", streams=True)
        for stream in DOWN
    ),
    Route("POST", f"{BASE}/instance/{{id}}/input", write_input, "run", streams=True),
    Route("POST", f"{BASE}/instance/{{id}}/stdin", write_stdin, "run", streams=True),
)
