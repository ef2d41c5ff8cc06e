"""What comes in with a request: JSON bodies, streams, flags and content types."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from sth_broker.api.route import services
from sth_protocol.errors import BadRequest, BodyCut, TimedOut, TooLarge, UnsupportedMediaType
from sth_protocol.model import Json

JSON_TYPES = ("application/json", "text/json")
OCTETS = "application/octet-stream"
_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")


async def leave_expectation(request: web.Request) -> None:
    """The route's Expect handler: whoever waits for 100 gets it once the request is admitted, and
    the error otherwise."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="only 100-continue can be expected")


async def invite_body(request: web.Request) -> None:
    """Send 100 to a client that waits for it. Call it before the first read of a body."""
    if request.headers.get(hdrs.EXPECT) is not None and request.version >= (1, 1):
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As aiohttp does it: these bytes are not of the answer.
        writer.output_size = 0


def media_type(request: web.Request) -> str:
    """The content type without parameters, in lower case; empty if none was sent."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


def require_octets(request: web.Request, *more: str) -> None:
    """UnsupportedMediaType unless the body is declared as octets, or not at all."""
    kind = media_type(request)
    if kind and kind not in (OCTETS, *more):
        raise UnsupportedMediaType(
            f"the content type is {kind[:80]}, this takes {OCTETS}",
            hint=f"send `content-type: {OCTETS}`",
        )


async def read_json(request: web.Request) -> object:
    """The JSON body; None if it is empty. BadRequest, TooLarge, TimedOut. As with the original, a
    content type of JSON is mandatory."""
    _check_json_type(request)
    config = services(request).config
    text = await _read_small(request, config.max_json_bytes, config.json_timeout)
    if not text:
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        # Escapes can name halves of characters, which nothing could store or send on.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise _unreadable("it is not JSON") from None
    return value


async def read_object(request: web.Request) -> Json:
    """The JSON body, an object; `null` and nothing count as an empty one."""
    value = await read_json(request)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


async def read_message(request: web.Request, code: int) -> Json:
    """The object of a control message, with or without `[code, object]` around it."""
    value = await read_json(request)
    if isinstance(value, list):
        if len(value) != 2 or value[0] != code or isinstance(value[0], bool):
            raise BadRequest(f"the body is neither an object nor [{code}, object]")
        value = value[1]
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"the body is neither an object nor [{code}, object]")
    return value


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. BodyCut when it ends before its end."""
    await invite_body(request)
    try:
        while chunk := await request.content.readany():
            yield chunk
    except (ConnectionError, RequestPayloadError) as error:
        raise BodyCut("the body ended before its end") from error


def ends_stream(request: web.Request, *, default: bool) -> bool:
    """Whether the stream ends with this body. Anything but true and false is the route's default,
    as with the original."""
    return {"true": True, "false": False}.get(request.headers.get("x-end-stream", ""), default)


def take(values: Mapping[str, Any], key: str, kind: type, *, default: Any) -> Any:
    """A field of a JSON object; absent and null are `default`. BadRequest for another type."""
    value = values.get(key)
    if value is None:
        return default
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong:
        raise BadRequest(f"{key} is not {_JSON_NAMES[kind]}")
    return value


_JSON_NAMES = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


def _check_json_type(request: web.Request) -> None:
    header = request.headers.get(hdrs.CONTENT_TYPE, "")
    kind, _, parameters = header.partition(";")
    if kind.strip().lower() not in JSON_TYPES:
        raise _unreadable("its content type is not application/json")
    name, _, charset = parameters.partition("=")
    if name.strip().lower() == "charset" and charset.strip(' "').lower() not in _UTF_8:
        raise _unreadable("its encoding is not utf-8")


async def _read_small(request: web.Request, limit: int, seconds: float) -> bytes:
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks(request):
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the body is larger than {limit} bytes")
    except TimeoutError:
        raise TimedOut(f"the body did not come within {seconds:g} s") from None
    return bytes(body)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _unreadable(why: str) -> BadRequest:
    return BadRequest(
        f"Could not parse content: {why}", hint="send `content-type: application/json`"
    )
