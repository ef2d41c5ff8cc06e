"""What a session keeps from whom."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.session_pair import SessionPair

from sth_agent.channels import ChannelUser
from sth_protocol.errors import BadFrame, SthError


class Stumbling(ChannelUser):
    """Raises at whatever it is told."""

    def accepted(self, info: Mapping[str, Any]) -> None:
        raise BadFrame("not the broker's fault")

    def received(self, data: bytes, more: bool) -> None:
        raise ValueError

    def finished(self) -> None:
        raise ZeroDivisionError

    def credited(self, consumed: int) -> None:
        raise KeyError

    def reset(self, error: SthError, consumed: int | None) -> None:
        raise AssertionError("even at this")


class Hearing(ChannelUser):
    def __init__(self) -> None:
        self.data = b""

    def received(self, data: bytes, more: bool) -> None:
        self.data += data


async def pair_with_hearing() -> tuple[SessionPair, Hearing, int]:
    """A session with one channel that works, and its number."""
    pair = SessionPair()
    stream, channel = pair.open(kind="good")
    hearing = channel.user = Hearing()
    channel.accept({})
    pair.transfer()
    return pair, hearing, stream.number


@pytest.mark.parametrize("happening", ["received", "finished", "credited", "reset"])
async def test_user_that_fails_loses_its_channel_and_no_other(
    happening: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair, hearing, good = await pair_with_hearing()
    stream, channel = pair.open(kind="bad")
    channel.accept({})
    pair.transfer()
    channel.user = Stumbling()
    match happening:
        case "received":
            pair.broker.send(stream.number, b"x")
        case "finished":
            pair.broker.finish(stream.number)
        case "credited":
            channel.send(b"x" * 10_000)
            pair.transfer()
            pair.report()
        case "reset":
            pair.broker.reset(stream.number, "STREAM_FAILED")
    pair.broker.send(good, b"on and on")
    pair.transfer()
    assert hearing.data == b"on and on"
    assert not pair.agent.lost
    assert channel.over
    assert "failed" in caplog.text
    if happening != "reset":
        assert stream.reset is not None
        assert stream.reset.code == "INTERNAL"


async def test_user_that_fails_when_it_is_accepted_loses_its_channel() -> None:
    pair, hearing, good = await pair_with_hearing()
    pair.agent.open({"kind": "publish"}, Stumbling())
    pair.transfer()
    stream = pair.opened_by_agent[-1]
    pair.accept(stream)
    pair.broker.send(good, b"on")
    pair.transfer()
    assert hearing.data == b"on"
    assert stream.reset is not None
