"""One tree of errors: each carries a code for machines, an HTTP status, an exit code and a hint.

    SthError
    ├── BadRequest            the request cannot be understood
    │   ├── BadName           a name breaks its rules
    │   ├── BodyCut           a body ended before its end
    │   └── JoinTokenMalformed
    ├── Unauthorized          no token, or not a valid one
    ├── Forbidden             a valid token that may not do this
    │   ├── Revoked           an identity that was taken back
    │   └── CertificateExpired
    ├── NotFound              not there, or not yours: the answer is the same
    ├── MethodNotAllowed
    ├── NotAcceptable
    ├── Conflict              the present state does not allow it
    ├── JoinTokenSpent        expired, used or revoked
    ├── PinMismatch           the peer is not the broker of the token
    ├── TooLarge
    ├── UnsupportedMediaType
    ├── BadPackage            a Sequence package that cannot be used
    ├── InsufficientResources
    ├── StreamFailed          the program or its machine ended a stream early
    ├── InstanceFailed        the program ended with an error
    ├── TopicFull
    ├── SequenceGap           a producer skipped or overlapped records
    ├── ProducerFenced        a newer epoch of that producer has published
    ├── OffsetTrimmed, OffsetBeyondEnd
    ├── Corrupt               stored bytes do not match their checksum
    ├── StorageFailed         the disk refused
    ├── HubOffline, Unreachable
    ├── TimedOut
    ├── RateLimited           asked too often
    ├── SandboxRefused        a required mechanism is missing on that machine
    ├── Misconfigured
    ├── Internal              a defect of ours
    └── ProtocolError         the peer broke the wire's rules: the link is closed
        ├── BadFrame, FrameTooLarge, BadHandshake, VersionUnsupported
        ├── FlowControlViolated, ChannelViolation, SessionLost, LinkReplaced

`code` is part of the API: it never changes its meaning.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar


class SthError(Exception):
    """Any error that we name. `message`: what happened and why; `hint`: what to do."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def to_wire(self) -> dict[str, str]:
        """The map that travels on the wire and in HTTP bodies."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class BadRequest(SthError):
    code = "BAD_REQUEST"
    http_status = 400
    exit_code = 2


class BadName(BadRequest):
    code = "BAD_NAME"


class BodyCut(BadRequest):
    code = "BODY_CUT"
    exit_code = 1
    default_hint = "send it again, whole"


class JoinTokenMalformed(BadRequest):
    code = "JOIN_TOKEN_MALFORMED"


class Unauthorized(SthError):
    code = "UNAUTHORIZED"
    http_status = 401
    exit_code = 4
    default_hint = "send a valid API token; `sth token create api` makes one"


class Forbidden(SthError):
    code = "FORBIDDEN"
    http_status = 403
    exit_code = 4


class Revoked(Forbidden):
    code = "REVOKED"
    default_hint = "join this machine again with a new token: `sth token create join`"


class CertificateExpired(Forbidden):
    code = "CERTIFICATE_EXPIRED"
    default_hint = "renew it, or join this machine again with a new token"


class NotFound(SthError):
    code = "NOT_FOUND"
    http_status = 404
    exit_code = 3


class MethodNotAllowed(SthError):
    code = "METHOD_NOT_ALLOWED"
    http_status = 405
    exit_code = 2


class NotAcceptable(SthError):
    code = "NOT_ACCEPTABLE"
    http_status = 406
    exit_code = 2


class Conflict(SthError):
    code = "CONFLICT"
    http_status = 409
    exit_code = 5


class JoinTokenSpent(SthError):
    code = "JOIN_TOKEN_SPENT"
    http_status = 410
    exit_code = 4
    default_hint = "make a new one: `sth token create join`"


class PinMismatch(SthError):
    code = "PIN_MISMATCH"
    http_status = 403
    exit_code = 4


class TooLarge(SthError):
    code = "TOO_LARGE"
    http_status = 413


class UnsupportedMediaType(SthError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415
    exit_code = 2


class BadPackage(SthError):
    code = "BAD_PACKAGE"
    http_status = 422
    exit_code = 2


class InsufficientResources(SthError):
    code = "INSUFFICIENT_RESOURCES"
    http_status = 419


class StreamFailed(SthError):
    code = "STREAM_FAILED"
    http_status = 502


class InstanceFailed(SthError):
    code = "INSTANCE_FAILED"
    http_status = 400
    exit_code = 8


class TopicFull(SthError):
    code = "TOPIC_FULL"
    http_status = 507


class SequenceGap(SthError):
    code = "SEQUENCE_GAP"
    http_status = 409
    exit_code = 5


class ProducerFenced(SthError):
    code = "PRODUCER_FENCED"
    http_status = 409
    exit_code = 5


class OffsetTrimmed(SthError):
    code = "OFFSET_TRIMMED"
    http_status = 410


class OffsetBeyondEnd(SthError):
    code = "OFFSET_BEYOND_END"
    http_status = 416


class Corrupt(SthError):
    code = "CORRUPT"


class StorageFailed(SthError):
    code = "STORAGE_FAILED"
    http_status = 507


class HubOffline(SthError):
    code = "HUB_OFFLINE"
    http_status = 503
    exit_code = 6


class Unreachable(SthError):
    code = "UNREACHABLE"
    http_status = 502
    exit_code = 6


class TimedOut(SthError):
    code = "TIMED_OUT"
    http_status = 504
    exit_code = 7


class RateLimited(SthError):
    code = "RATE_LIMITED"
    http_status = 429
    exit_code = 7
    default_hint = "wait, then try again"


class SandboxRefused(SthError):
    code = "SANDBOX_REFUSED"
    http_status = 409
    exit_code = 78


class Misconfigured(SthError):
    code = "MISCONFIGURED"
    http_status = 500
    exit_code = 78


class Internal(SthError):
    code = "INTERNAL"
    default_hint = "this is a defect of sth-edge; please report it with the log around it"


class ProtocolError(SthError):
    """The peer broke the rules of the wire. The link is closed with this code."""

    code = "PROTOCOL_ERROR"
    http_status = 502


class BadFrame(ProtocolError):
    code = "BAD_FRAME"


class FrameTooLarge(ProtocolError):
    code = "FRAME_TOO_LARGE"


class BadHandshake(ProtocolError):
    code = "BAD_HANDSHAKE"


class VersionUnsupported(ProtocolError):
    code = "VERSION_UNSUPPORTED"
    exit_code = 78
    default_hint = "upgrade the older side"


class FlowControlViolated(ProtocolError):
    code = "FLOW_CONTROL_VIOLATED"


class ChannelViolation(ProtocolError):
    code = "CHANNEL_VIOLATION"


class SessionLost(ProtocolError):
    code = "SESSION_LOST"
    http_status = 503
    exit_code = 6
    default_hint = "try again"


class LinkReplaced(ProtocolError):
    code = "LINK_REPLACED"


def tree(root: type[SthError] = SthError) -> Iterator[type[SthError]]:
    """Every class of the tree that has a code of its own, parents first. A component's refinement
    without one travels as its parent."""
    if "code" in vars(root):
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


def from_wire(message: Mapping[str, object]) -> SthError:
    """The error of a `{code, message, hint}` map; an unknown code becomes Internal."""
    code, text, hint = (str(message.get(key) or "") for key in ("code", "message", "hint"))
    by_code = {each.code: each for each in tree() if each is not SthError}
    kind = by_code.get(code)
    if kind is None:
        return Internal(f"{code or 'an error without a code'}: {text}", hint=hint)
    return kind(text, hint=hint)
