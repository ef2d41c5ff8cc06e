"""What went wrong between here and the broker, in words: operating system errors to our own.

Both clients use it, so that the same trouble reads the same in both.
"""

import socket
import ssl

from sth_protocol.errors import SthError, StreamFailed, TimedOut, Unreachable

_START_HINT = "start it with `sth-broker up`, or give another address with --url"


def connecting(base: str, seconds: float, error: BaseException) -> SthError:
    """The error of a connection that did not come about. `seconds`: how long was waited."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {base} was refused: {error.verify_message}",
            hint="give the CA that signed it with --ca-file",
        )
    if isinstance(error, ssl.SSLError):
        return Unreachable(
            f"no TLS with {base}: {error.reason or error}",
            hint="is it http:// rather than https://?",
        )
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"the host of {base} is not known: {error.strerror}", hint="check the name in the URL"
        )
    if isinstance(error, TimeoutError):
        return Unreachable(
            f"no connection to {base} within {seconds:g} s", hint="check address and firewall"
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"no broker listens at {base}", hint=_START_HINT)
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Unreachable(f"no connection to {base}: {why or type(error).__name__}", hint=_START_HINT)


def unanswered(what: str, base: str) -> Unreachable:
    """The broker took a request and closed without an answer; `what`: method and path."""
    return Unreachable(
        f"{base} closed the connection without an answer to {what}",
        hint="look at the broker's log, then try again",
    )


def late(what: str, base: str, seconds: float) -> TimedOut:
    """No answer in time."""
    return TimedOut(
        f"no answer to {what} from {base} within {seconds:g} s",
        hint="it may still happen: look before you try again",
    )


def foreign(what: str, base: str, detail: str) -> Unreachable:
    """Something answered that is no broker."""
    return Unreachable(
        f"what answered {what} at {base} is no broker of ours: {detail}", hint="check the URL"
    )


def received_in_part(what: str, count: int) -> StreamFailed:
    """A stream from the broker broke off after `count` bytes."""
    return StreamFailed(
        f"{what} broke off after {count} bytes",
        hint="this is not its end: read again for the rest",
    )


def sent_in_part(what: str, count: int) -> StreamFailed:
    """A stream to the broker broke off after `count` bytes were sent, without an answer."""
    return StreamFailed(
        f"the connection of {what} broke off after {count} bytes were sent",
        hint="how much of it arrived is not known; `sth inst show` tells how an Instance is",
    )
