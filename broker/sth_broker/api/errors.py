"""Errors as HTTP answers: the one place where an exception becomes a status and a body.

The body is `{"error", "code", "message", "hint"}`; `error` repeats the message, because it is what
the original's clients show.
"""

import logging
import secrets
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from sth_broker.api.answers import answer
from sth_broker.api.route import Handler
from sth_protocol.errors import (
    BadPackage,
    BadRequest,
    BodyCut,
    Internal,
    MethodNotAllowed,
    NotFound,
    SthError,
)
from sth_protocol.model import Json

logger = logging.getLogger(__name__)


def error_body(error: SthError) -> Json:
    """The JSON of an error."""
    wire = error.to_wire()
    if isinstance(error, BadPackage):
        return {"error": {"code": "PRERUNNER_ERROR", "data": error.message}, **wire}
    return {"error": error.message, **wire}


def error_response(error: SthError, *, status: int = 0, **more: object) -> web.Response:
    """The answer to a request that failed. `status`: another than the error's own; `more` goes
    into its body."""
    status = status or error.http_status
    response = answer({**error_body(error), **more}, status=status)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with the error that a handler raises. Handlers that have begun their answer must not
    raise one: they close the connection."""
    try:
        return await handler(request)
    except SthError as error:
        if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.warning("%s %s: %s", request.method, request.path, error)
        return error_response(error)
    except web.HTTPException as error:
        return _aiohttps_own(request, error)
    except RequestPayloadError:
        return error_response(BodyCut("the body is not what its header promised"))
    except ConnectionError:
        # Nobody is there to be answered.
        raise
    except Exception:
        number = secrets.token_hex(4)
        logger.exception("request %s failed: %s %s", number, request.method, request.path)
        return error_response(Internal(f"the broker failed; its log tells of request {number}"))


def _aiohttps_own(request: web.Request, error: web.HTTPException) -> web.Response:
    """An answer of aiohttp's own, such as 405 or 417, in the shape of ours."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_response(
            MethodNotAllowed(f"{request.method} is not for this path; it takes {allowed}")
        )
        response.headers["Allow"] = allowed
        return response
    if error.status == HTTPStatus.NOT_FOUND:
        return error_response(NotFound(f"there is nothing at {request.path[:200]}"))
    return error_response(BadRequest(error.text or error.reason), status=error.status)
