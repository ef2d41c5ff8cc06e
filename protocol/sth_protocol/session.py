"""Whether a new link goes on with the session of the last one: pure decisions for both ends.

A session is known by the boot ids of both processes. It can be resumed while both still hold its
multiplexer and each side kept what the other one lacks. The newest link of an agent, by epoch,
takes the place of an older one; an older one that comes late is refused.
"""

from dataclasses import dataclass

from sth_protocol.errors import BadHandshake, LinkReplaced, ProtocolError, SessionLost
from sth_protocol.handshake import Hello, Welcome


@dataclass(frozen=True, slots=True)
class HeldSession:
    """What a side holds of a session. `epoch`: of its newest link; `resumable`: that of its
    multiplexer, the counts of received frames with which the peer can go on."""

    agent_boot: bytes
    broker_boot: bytes
    epoch: int
    resumable: range


@dataclass(frozen=True, slots=True)
class Resume:
    """Attach the held multiplexer with `peer_received`."""

    peer_received: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """Begin a new session. What was held, if anything, is lost for its users, for that reason."""

    lost: SessionLost | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Close the link with this error; what is held stays."""

    error: ProtocolError


Decision = Resume | Fresh | Refuse


def decide_resume(held: HeldSession | None, hello: Hello) -> Decision:
    """What a broker does with a HELLO, given the session that it holds of that Hub."""
    if held is None:
        return Fresh()
    if hello.epoch <= held.epoch:
        return Refuse(
            LinkReplaced(f"connection {held.epoch} of this Hub is newer than {hello.epoch}")
        )
    if hello.agent_boot != held.agent_boot:
        return Fresh(SessionLost("the agent was started anew"))
    if hello.broker_boot != held.broker_boot:
        return Fresh(SessionLost("the agent does not hold this session any more"))
    if hello.received not in held.resumable:
        return Fresh(SessionLost("what the agent lacks of this session is not kept any more"))
    return Resume(hello.received)


def decide_welcome(held: HeldSession | None, welcome: Welcome) -> Decision:
    """What an agent does with a WELCOME, given the session that it named in its HELLO."""
    if not welcome.resumed:
        return Fresh(SessionLost(_why_not_resumed(held, welcome)) if held else None)
    if held is None or held.broker_boot != welcome.broker_boot:
        return Refuse(BadHandshake("the broker resumes a session that this agent did not name"))
    if welcome.received not in held.resumable:
        return Refuse(SessionLost("what the broker lacks of this session is not kept any more"))
    return Resume(welcome.received)


def _why_not_resumed(held: HeldSession, welcome: Welcome) -> str:
    if held.broker_boot != welcome.broker_boot:
        return "the broker was started anew"
    return "the broker does not hold this session any more"
