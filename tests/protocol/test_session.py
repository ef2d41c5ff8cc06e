from dataclasses import replace

import pytest

from sth_protocol.errors import BadHandshake, LinkReplaced, SessionLost
from sth_protocol.handshake import Hello, Welcome
from sth_protocol.model import HubInfo
from sth_protocol.session import (
    Fresh,
    HeldSession,
    Refuse,
    Resume,
    decide_resume,
    decide_welcome,
)

AGENT, BROKER, OTHER = b"a" * 16, b"b" * 16, b"o" * 16
HUB = HubInfo(name="hub", agent_version="1", arch="x86_64", os="Debian", python="3.11")
HELD = HeldSession(agent_boot=AGENT, broker_boot=BROKER, epoch=5, resumable=range(10, 21))
HELLO = Hello(agent_boot=AGENT, epoch=6, hub=HUB, broker_boot=BROKER, received=15)
WELCOME = Welcome(
    version=1,
    broker_boot=BROKER,
    resumed=True,
    received=15,
    time_ms=0,
    heartbeat_ms=15_000,
    hub="hub",
    space="default",
)


@pytest.mark.parametrize("received", [10, 15, 20])
def test_broker_resumes_while_it_holds_what_the_agent_lacks(received: int) -> None:
    assert decide_resume(HELD, replace(HELLO, received=received)) == Resume(received)


def test_broker_begins_anew_when_it_holds_nothing() -> None:
    assert decide_resume(None, HELLO) == Fresh(None)


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (replace(HELLO, agent_boot=OTHER), "the agent was started anew"),
        (replace(HELLO, broker_boot=OTHER), "does not hold"),
        (replace(HELLO, broker_boot=None, received=0), "does not hold"),
        (replace(HELLO, received=9), "not kept"),
        (replace(HELLO, received=21), "not kept"),
    ],
)
def test_broker_begins_anew_and_says_why_the_old_session_is_lost(hello: Hello, why: str) -> None:
    decision = decide_resume(HELD, hello)
    assert isinstance(decision, Fresh) and isinstance(decision.lost, SessionLost)
    assert why in decision.lost.message


@pytest.mark.parametrize("epoch", [0, 4, 5])
@pytest.mark.parametrize("boot", [AGENT, OTHER])
def test_broker_refuses_a_connection_that_is_not_the_newest(epoch: int, boot: bytes) -> None:
    decision = decide_resume(HELD, replace(HELLO, epoch=epoch, agent_boot=boot))
    assert isinstance(decision, Refuse) and isinstance(decision.error, LinkReplaced)


def test_broker_begins_anew_after_a_session_that_ended_with_an_error() -> None:
    assert isinstance(decide_resume(replace(HELD, resumable=range(0)), HELLO), Fresh)


@pytest.mark.parametrize("received", [10, 20])
def test_agent_resumes_when_the_broker_does(received: int) -> None:
    assert decide_welcome(HELD, replace(WELCOME, received=received)) == Resume(received)


def test_agent_begins_anew_when_the_broker_does() -> None:
    fresh = replace(WELCOME, resumed=False, received=0)
    assert decide_welcome(None, fresh) == Fresh(None)
    lost = decide_welcome(HELD, fresh)
    assert isinstance(lost, Fresh) and lost.lost and "does not hold" in lost.lost.message
    restarted = decide_welcome(HELD, replace(fresh, broker_boot=OTHER))
    assert isinstance(restarted, Fresh) and restarted.lost
    assert "started anew" in restarted.lost.message


def test_agent_refuses_a_session_that_it_did_not_name() -> None:
    for decision in (
        decide_welcome(None, WELCOME),
        decide_welcome(HELD, replace(WELCOME, broker_boot=OTHER)),
    ):
        assert isinstance(decision, Refuse) and isinstance(decision.error, BadHandshake)


@pytest.mark.parametrize("received", [9, 21])
def test_agent_refuses_to_resume_without_what_the_broker_lacks(received: int) -> None:
    decision = decide_welcome(HELD, replace(WELCOME, received=received))
    assert isinstance(decision, Refuse) and isinstance(decision.error, SessionLost)
