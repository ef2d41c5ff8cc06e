"""From an HTTP answer to a value or an error. Pure: status, reason and body in, SthError out."""

import json
from collections.abc import Mapping

from sth_client.failures import foreign
from sth_protocol import errors

MAX_JSON_BYTES = 64 * 1024 * 1024

# The original answers some errors with an empty body: then the status alone says which it is.
_BY_STATUS: dict[int, type[errors.SthError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    406: errors.NotAcceptable,
    408: errors.TimedOut,
    409: errors.Conflict,
    410: errors.JoinTokenSpent,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    419: errors.InsufficientResources,
    422: errors.BadPackage,
    429: errors.RateLimited,
    502: errors.Unreachable,
    503: errors.HubOffline,
    504: errors.TimedOut,
    507: errors.StorageFailed,
}


def read_json(status: int, reason: str, body: bytes, *, what: str, base: str) -> object:
    """The value of an answer; None for an empty one. `what` and `base` name it in messages.

    Raises the SthError that an answer of 400 and above stands for.
    """
    if status >= 400:
        raise error_of(status, reason, body, what=what)
    if status >= 300 or status < 200:
        raise foreign(what, base, f"HTTP {status} {reason}")
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        raise foreign(what, base, "its answer is not JSON") from None


def error_of(status: int, reason: str, body: bytes, *, what: str) -> errors.SthError:
    """The error that an answer of 400 and above stands for."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, Mapping):
        value = {}
    code, hint = str(value.get("code") or ""), str(value.get("hint") or "")
    message = _message(value) or f"{what}: HTTP {status} {reason}".strip()
    if code in {each.code for each in errors.tree()}:
        return errors.from_wire({"code": code, "message": message, "hint": hint})
    kind = _BY_STATUS.get(status) or (errors.BadRequest if status < 500 else errors.Internal)
    return kind(f"{message} ({code})" if code else message, hint=hint)


def _message(value: Mapping[object, object]) -> str:
    """`message`, else the original's `error`: a text, or a map with its text under `data`."""
    for candidate in (value.get("message"), value.get("error")):
        if isinstance(candidate, str) and candidate:
            return candidate
        if isinstance(candidate, Mapping):
            return str(candidate.get("data") or candidate.get("message") or candidate)
    return ""
