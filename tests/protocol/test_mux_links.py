"""Links that break and come back under a session."""

import pytest
from tests.support.joined import Joined, decode_frames, encode_frames

from sth_protocol.errors import ChannelViolation, ProtocolError, SessionLost
from sth_protocol.events import Accepted, Control, Credited, Data, Finished, Opened, Reset
from sth_protocol.mux import Mux, Side
from sth_protocol.window import MIN_WINDOW


def opened(joined: Joined) -> int:
    number = joined.broker.mux.open({"kind": "test"})
    joined.pump()
    joined.agent.mux.accept(number)
    joined.pump()
    joined.seen(joined.agent)
    joined.seen(joined.broker)
    return number


def test_link_that_breaks_loses_nothing_and_doubles_nothing() -> None:
    joined = Joined()
    number = opened(joined)
    for word in (b"one", b"two", b"three"):
        joined.broker.mux.send(number, word)
        joined.broker.take()
    joined.deliver(joined.broker)
    joined.join()
    joined.pump()
    assert joined.seen(joined.agent) == [
        Data(number, b"one", False),
        Data(number, b"two", False),
        Data(number, b"three", False),
    ]


def test_link_that_breaks_at_every_step_of_a_channel_changes_nothing() -> None:
    joined = Joined()
    number = joined.broker.mux.open({"kind": "test"})
    for step in range(4):
        if step == 1:
            joined.agent.mux.accept(number)
        if step == 2:
            joined.broker.mux.send(number, b"data")
            joined.broker.mux.finish(number)
        if step == 3:
            joined.agent.mux.consume(number, 4)
            joined.agent.mux.finish(number)
        for end in joined.ends:
            end.take()
        joined.join()
        joined.pump()
    assert joined.seen(joined.agent) == [
        Opened(number, {"kind": "test"}),
        Data(number, b"data", False),
        Finished(number),
    ]
    assert joined.seen(joined.broker) == [
        Accepted(number, {}),
        Credited(number, 4),
        Finished(number),
    ]
    assert not joined.agent.mux.channels() and not joined.broker.mux.channels()


def test_link_that_takes_a_credit_with_it_is_followed_by_one_that_brings_it_again() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, bytes(2 * MIN_WINDOW))
    joined.pump()
    joined.agent.mux.consume(number, MIN_WINDOW)
    joined.agent.take()
    joined.join()
    joined.pump()
    assert Credited(number, MIN_WINDOW) in joined.seen(joined.broker)
    assert joined.broker.mux.queued(number) == 0


def test_link_that_takes_a_reset_with_it_is_followed_by_one_that_brings_it_once() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.reset(number, "TEST", "why")
    joined.agent.take()
    joined.join()
    joined.pump()
    joined.join()
    joined.pump()
    assert joined.seen(joined.broker) == [Reset(number, "TEST", "why", 0)]


def test_link_tells_of_credit_only_for_channels_that_the_peer_knows() -> None:
    joined = Joined()
    joined.agent.mux.open({"kind": "never arrived"})
    joined.agent.take()
    joined.join()
    first = decode_frames(joined.agent.mux.take_outgoing())
    assert [frame[0] for frame in first] == [3]


def test_link_sends_again_before_anything_new() -> None:
    joined = Joined()
    joined.agent.mux.control({"type": "first"})
    joined.agent.take()
    joined.cut()
    joined.agent.mux.control({"type": "second"})
    joined.join()
    joined.pump()
    assert joined.seen(joined.broker) == [Control({"type": "first"}), Control({"type": "second"})]


def test_link_sends_again_in_portions() -> None:
    joined = Joined()
    for number in range(20):
        joined.agent.mux.control({"type": "test", "number": number, "bytes": bytes(20_000)})
    joined.agent.take(10**9)
    joined.join()
    joined.agent.take(1)
    assert len(joined.agent.outgoing) == 1
    joined.pump()
    assert len(joined.seen(joined.broker)) == 20


def test_link_that_is_gone_sends_and_receives_nothing() -> None:
    joined = Joined()
    joined.broker.mux.control({"type": "test"})
    [late] = joined.broker.mux.take_outgoing()
    joined.agent.mux.ping(1)
    joined.agent.mux.detach()
    assert joined.agent.mux.receive(late) == []
    assert joined.agent.mux.received == 0
    assert not joined.agent.mux.has_outgoing and not joined.agent.mux.take_outgoing()
    joined.join()
    joined.pump()
    assert joined.seen(joined.agent) == [Control({"type": "test"})]


def test_link_takes_its_pings_with_it() -> None:
    joined = Joined()
    joined.agent.mux.ping(1)
    joined.agent.take()
    joined.agent.mux.ping(2)
    joined.deliver(joined.agent)
    joined.join()
    joined.pump()
    assert joined.seen(joined.agent) == []


def test_session_knows_with_what_it_can_go_on() -> None:
    joined = Joined()
    for _ in range(40):
        joined.agent.mux.control({"type": "test"})
    assert joined.agent.mux.resumable == range(0, 1)
    joined.pump()
    joined.agent.mux.control({"type": "test"})
    joined.agent.take()
    assert joined.agent.mux.resumable == range(40, 42)
    for count in (39, 42):
        with pytest.raises(SessionLost):
            joined.agent.mux.attach(peer_received=count)


def test_session_that_was_broken_by_the_peer_is_over() -> None:
    mux = Mux(side=Side.BROKER)
    mux.attach(peer_received=0)
    mux.control({"type": "test"})
    with pytest.raises(ChannelViolation):
        mux.receive(encode_frames([5, 1, 0, b"never opened"]))
    assert not mux.has_outgoing
    assert mux.receive(encode_frames([12, 0, 1, None])) == []
    assert 0 not in mux.resumable
    with pytest.raises(SessionLost):
        mux.attach(peer_received=0)


def test_session_whose_peer_acknowledges_too_much_is_over() -> None:
    joined = Joined()
    with pytest.raises(ProtocolError, match="1 frames acknowledged"):
        joined.agent.mux.receive(encode_frames([11, 0, 1, None]))
