from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.joined import Joined, decode_frames, encode_frames

from sth_protocol import codec, frames
from sth_protocol.errors import BadRequest, InsufficientResources, Internal, TooLarge
from sth_protocol.events import (
    Accepted,
    Closed,
    Control,
    Credited,
    Data,
    Finished,
    Opened,
    Pong,
    Reset,
)
from sth_protocol.handshake import encode_close
from sth_protocol.mux import Limits, Mux, Side
from sth_protocol.window import MAX_WINDOW, MIN_WINDOW


def opened(joined: Joined) -> int:
    """A channel that the broker opened and the agent accepted; no events are left over."""
    number = joined.broker.mux.open({"kind": "test"})
    joined.pump()
    joined.agent.mux.accept(number)
    joined.pump()
    joined.seen(joined.agent)
    joined.seen(joined.broker)
    return number


def deep(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


def consume_all(joined: Joined) -> None:
    """The agent consumes everything that came, and the broker knows."""
    joined.pump()
    for event in joined.seen(joined.agent):
        if isinstance(event, Data):
            joined.agent.mux.consume(event.channel, len(event.data))
    joined.pump()


def widened(joined: Joined, rounds: int) -> int:
    """A channel on which full windows were consumed so often."""
    number = opened(joined)
    for _ in range(rounds):
        joined.broker.mux.send(number, bytes(joined.broker.mux.sendable(number)))
        consume_all(joined)
    return number


def kinds(messages: Sequence[bytes]) -> list[Any]:
    return [frame[0] for frame in decode_frames(messages)]


def test_mux_opens_odd_channels_for_the_agent_and_even_ones_for_the_broker() -> None:
    joined = Joined()
    assert [joined.agent.mux.open({}) for _ in range(3)] == [1, 3, 5]
    assert [joined.broker.mux.open({}) for _ in range(3)] == [2, 4, 6]


def test_mux_tells_what_is_opened_and_accepted() -> None:
    joined = Joined()
    number = joined.broker.mux.open({"kind": "instance", "stream": "input"})
    joined.pump()
    assert joined.seen(joined.agent) == [
        Opened(number, {"kind": "instance", "stream": "input"}),
    ]
    joined.agent.mux.accept(number, {"offset": 7})
    joined.pump()
    assert joined.seen(joined.broker) == [Accepted(number, {"offset": 7})]
    assert list(joined.agent.mux.channels()) == list(joined.broker.mux.channels()) == [number]


def test_mux_carries_data_both_ways_and_ends_when_all_is_consumed() -> None:
    joined = Joined()
    number = opened(joined)
    for end, text in ((joined.agent, b"from agent"), (joined.broker, b"from broker")):
        end.mux.send(number, text)
        end.mux.finish(number)
    joined.pump()
    assert joined.seen(joined.agent) == [Data(number, b"from broker", False), Finished(number)]
    assert joined.seen(joined.broker) == [Data(number, b"from agent", False), Finished(number)]
    joined.agent.mux.consume(number, len(b"from broker"))
    joined.broker.mux.consume(number, len(b"from agent"))
    assert number in joined.agent.mux.channels()
    joined.pump()
    assert not joined.agent.mux.channels() and not joined.broker.mux.channels()
    assert joined.seen(joined.broker) == [Credited(number, len(b"from broker"))]


def test_mux_lets_the_opener_send_16_kib_before_it_is_accepted() -> None:
    joined = Joined()
    number = joined.agent.mux.open({})
    joined.agent.mux.send(number, bytes(MIN_WINDOW + 1))
    joined.pump()
    _, data = joined.seen(joined.broker)
    assert data == Data(number, bytes(MIN_WINDOW), True)
    assert (joined.agent.mux.sendable(number), joined.agent.mux.queued(number)) == (-1, 1)


def test_mux_reports_what_was_consumed_at_half_a_window_and_at_a_flush() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, bytes(MIN_WINDOW))
    joined.pump()
    joined.agent.mux.consume(number, 100)
    joined.pump()
    assert joined.seen(joined.broker) == []
    joined.agent.mux.flush_consumed()
    joined.pump()
    assert joined.seen(joined.broker) == [Credited(number, 100)]
    joined.agent.mux.consume(number, MIN_WINDOW // 2)
    joined.pump()
    assert joined.seen(joined.broker) == [Credited(number, 100 + MIN_WINDOW // 2)]
    assert joined.broker.mux.sendable(number) == 100 + MIN_WINDOW // 2


def test_mux_sends_a_stream_larger_than_every_window() -> None:
    joined = Joined()
    number = opened(joined)
    data = bytes(range(251)) * 40_000
    joined.broker.mux.send(number, data)
    joined.broker.mux.finish(number)
    came = bytearray()
    while len(came) < len(data):
        joined.pump()
        for event in joined.seen(joined.agent):
            if isinstance(event, Data):
                came += event.data
                joined.agent.mux.consume(number, len(event.data))
    assert came == data


def test_mux_stalled_channels_leave_every_other_its_16_kib() -> None:
    joined = Joined(Limits(pool=MAX_WINDOW))
    numbers = [widened(joined, 20) for _ in range(20)]
    sizes = [joined.broker.mux.sendable(number) for number in numbers]
    assert max(sizes) > MIN_WINDOW and min(sizes) >= MIN_WINDOW // 2
    for number, size in zip(numbers, sizes, strict=True):
        joined.broker.mux.send(number, bytes(size))
    joined.pump()
    last = opened(joined)
    assert joined.broker.mux.sendable(last) == MIN_WINDOW
    joined.broker.mux.send(last, bytes(100_000))
    while joined.broker.mux.queued(last):
        joined.pump()
        for event in joined.seen(joined.agent):
            if isinstance(event, Data) and event.channel == last:
                joined.agent.mux.consume(last, len(event.data))


def test_mux_takes_channels_in_turn_64_kib_each() -> None:
    joined = Joined()
    numbers = [widened(joined, 8) for _ in range(3)]
    for number in numbers:
        joined.broker.mux.send(number, bytes(256 * 1024))
    messages = joined.broker.mux.take_outgoing(10**9)
    order = [frame[1] for frame in decode_frames(messages) if frame[0] in (5, 6)]
    assert order[:6] == numbers + numbers


def test_mux_sends_control_before_data() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, b"data")
    joined.broker.mux.control({"type": "test"})
    joined.broker.mux.ping(5)
    assert kinds(joined.broker.mux.take_outgoing())[-3:] == [12, 10, 5]


def test_mux_gathers_small_frames_into_messages_of_about_64_kib() -> None:
    joined = Joined()
    numbers = [opened(joined) for _ in range(20)]
    for number in numbers:
        for _ in range(100):
            joined.broker.mux.send(number, bytes(100))
    messages = joined.broker.mux.take_outgoing(10**9)
    assert len(kinds(messages)) >= 2000
    assert len(messages) == 4
    assert max(map(len, messages)) <= 66 * 1024


def test_mux_gives_no_more_at_once_than_it_is_asked_for() -> None:
    joined = Joined()
    for number in [opened(joined) for _ in range(40)]:
        joined.broker.mux.send(number, bytes(MIN_WINDOW))
    total = 0
    while joined.broker.mux.has_outgoing:
        size = sum(map(len, joined.broker.mux.take_outgoing(1)))
        assert 0 < size <= 66 * 1024
        total += size
    assert total > 40 * MIN_WINDOW


def test_mux_never_sends_a_message_that_the_peer_would_refuse() -> None:
    joined = Joined()
    for _ in range(20):
        joined.broker.mux.control({"type": "test", "bytes": bytes(60_000)})
    assert max(map(len, joined.broker.mux.take_outgoing(10**9))) <= frames.MAX_MESSAGE
    joined.pump()


def test_mux_acknowledges_beside_what_it_sends_anyway() -> None:
    joined = Joined()
    joined.broker.mux.control({"type": "test"})
    joined.pump()
    assert not joined.agent.mux.has_outgoing
    joined.agent.mux.ping(1)
    assert decode_frames(joined.agent.mux.take_outgoing()) == [[11, 0, 1, None], [12, 0, 1, None]]


def test_mux_acknowledges_32_frames_or_a_flush() -> None:
    joined = Joined()
    for _ in range(32):
        joined.broker.mux.control({"type": "test"})
    joined.broker.take()
    joined.deliver(joined.broker)
    assert decode_frames(joined.agent.mux.take_outgoing()) == [[11, 0, 32, None]]
    joined.broker.mux.control({"type": "test"})
    joined.pump()
    joined.agent.mux.flush_consumed()
    assert decode_frames(joined.agent.mux.take_outgoing()) == [[11, 0, 33, None]]


def test_mux_reset_ends_a_channel_both_ways_and_drops_what_waits() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.send(number, b"0123456789")
    joined.broker.mux.send(number, bytes(MIN_WINDOW + 1))
    joined.pump()
    joined.agent.mux.consume(number, 1000)
    joined.agent.mux.reset(number, "STREAM_FAILED", "it broke")
    joined.pump()
    assert joined.seen(joined.broker)[-1] == Reset(number, "STREAM_FAILED", "it broke", 1000)
    assert not joined.agent.mux.channels() and not joined.broker.mux.channels()
    assert not joined.broker.mux.has_outgoing


def test_mux_has_nothing_to_send_for_a_channel_that_was_reset() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.reset(number, "TEST")
    joined.agent.take()
    joined.broker.mux.send(number, b"waits for its turn")
    joined.deliver(joined.agent)
    assert not joined.broker.mux.has_outgoing


def test_mux_tells_no_credit_for_a_channel_that_it_reset() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, bytes(MIN_WINDOW))
    joined.pump()
    joined.agent.mux.consume(number, MIN_WINDOW)
    joined.agent.mux.reset(number, "TEST")
    assert 9 not in kinds(joined.agent.mux.take_outgoing())


def test_mux_tells_no_credit_after_done() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, b"data")
    joined.broker.mux.finish(number)
    joined.pump()
    joined.agent.mux.consume(number, 4)
    joined.agent.mux.flush_consumed()
    assert kinds(joined.agent.mux.take_outgoing()) == [11, 15]
    joined.agent.mux.flush_consumed()
    assert not joined.agent.mux.has_outgoing


def test_mux_resets_of_both_sides_may_cross() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.reset(number, "A")
    joined.broker.mux.reset(number, "B")
    joined.pump()
    assert joined.seen(joined.agent) == joined.seen(joined.broker) == []


def test_mux_ignores_frames_that_were_on_their_way_to_a_channel_it_reset() -> None:
    joined = Joined()
    number = opened(joined)
    joined.broker.mux.send(number, b"late")
    joined.broker.mux.finish(number)
    joined.broker.take()
    joined.agent.mux.reset(number, "TEST")
    before = joined.agent.mux.received
    assert joined.deliver(joined.broker) == []
    assert joined.agent.mux.received == before + 2
    joined.pump()


def test_mux_reset_never_fails_for_its_words() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.reset(number, "C" * 1000, "file \udcff " + "x" * 100_000)
    joined.pump()
    [event] = joined.seen(joined.broker)
    assert isinstance(event, Reset)
    assert len(event.code) == 64 and event.message.startswith("file ? xxx")
    assert len(event.message) == frames.MAX_TEXT


def test_mux_ignores_intents_for_a_channel_that_is_over() -> None:
    joined = Joined()
    number = opened(joined)
    joined.agent.mux.reset(number, "TEST")
    joined.pump()
    mux = joined.broker.mux
    mux.send(number, b"data")
    mux.finish(number)
    mux.consume(number, 5)
    mux.accept(number)
    mux.reset(number, "TEST")
    assert (mux.sendable(number), mux.queued(number)) == (0, 0)
    assert not mux.has_outgoing


def test_mux_refuses_intents_that_make_no_sense() -> None:
    joined = Joined()
    offered = joined.agent.mux.open({})
    joined.pump()
    assert joined.broker.mux.sendable(offered) == 0
    for wrong in (
        lambda: joined.broker.mux.send(offered, b"before accepting"),
        lambda: joined.broker.mux.finish(offered),
        lambda: joined.agent.mux.accept(offered),
        lambda: joined.broker.mux.consume(offered, 1),
        lambda: joined.broker.mux.send(7, b"to nowhere"),
        lambda: joined.broker.mux.sendable(0),
        lambda: joined.broker.mux.reset(-1, "TEST"),
        lambda: joined.broker.mux.ping(2**63),
    ):
        with pytest.raises(Internal):
            wrong()
    joined.broker.mux.accept(offered)
    with pytest.raises(Internal):
        joined.broker.mux.accept(offered)
    joined.broker.mux.finish(offered)
    joined.broker.mux.finish(offered)
    assert joined.broker.mux.sendable(offered) == 0
    with pytest.raises(Internal):
        joined.broker.mux.send(offered, b"after the end")
    joined.pump()
    assert joined.seen(joined.agent)[-1] == Finished(offered)


def test_mux_refuses_maps_that_are_too_large_and_changes_nothing() -> None:
    joined = Joined()
    large = {"bytes": bytes(65 * 1024)}
    with pytest.raises(TooLarge):
        joined.agent.mux.open(large)
    with pytest.raises(TooLarge):
        joined.agent.mux.control(large)
    number = joined.broker.mux.open({})
    joined.pump()
    with pytest.raises(TooLarge):
        joined.agent.mux.accept(number, large)
    joined.agent.mux.accept(number)
    assert joined.agent.mux.open({}) == 1
    joined.pump()


@pytest.mark.parametrize(
    "value", [2**64, "\ud800", object(), {1: 2}, [[]] * 20_000, deep(40)], ids=lambda _: ""
)
def test_mux_refuses_values_that_would_cost_it_the_link(value: object) -> None:
    joined = Joined()
    for intent in (joined.agent.mux.control, joined.agent.mux.open):
        with pytest.raises(BadRequest):
            intent({"type": "instance.start", "config": {"value": value}})
    assert not joined.agent.mux.has_outgoing
    joined.agent.mux.control({"type": "test", "value": deep(20)})
    joined.pump()


def test_mux_refuses_to_open_more_channels_than_the_limit_until_one_is_over() -> None:
    joined = Joined(Limits(channels=2))
    first, _ = joined.agent.mux.open({}), joined.agent.mux.open({})
    with pytest.raises(InsufficientResources):
        joined.agent.mux.open({})
    joined.broker.mux.open({})
    joined.pump()
    joined.broker.mux.reset(first, "TEST")
    joined.pump()
    joined.agent.mux.open({})
    joined.pump()


def test_mux_refuses_control_messages_without_end_while_the_link_is_down() -> None:
    joined = Joined(Limits(control=100_000))
    joined.cut()
    with pytest.raises(InsufficientResources) as caught:
        for _ in range(10_000):
            joined.agent.mux.control({"type": "test", "text": "x" * 100})
    assert caught.value.hint
    with pytest.raises(InsufficientResources):
        joined.agent.mux.open({})
    joined.join()
    joined.pump()
    joined.agent.mux.control({"type": "test"})


def test_mux_sends_nothing_new_while_too_much_is_not_acknowledged() -> None:
    joined = Joined(Limits(unacknowledged=100_000))
    numbers = [opened(joined) for _ in range(20)]
    for number in numbers:
        joined.broker.mux.send(number, bytes(MIN_WINDOW))
    messages = joined.broker.mux.take_outgoing(10**9)
    joined.broker.mux.control({"type": "test"})
    assert not joined.broker.mux.has_outgoing
    assert 100_000 < sum(map(len, messages)) < 200_000
    joined.broker.outgoing += messages
    for _ in range(4):
        joined.pump()
        joined.agent.mux.flush_consumed()
    assert not any(joined.broker.mux.queued(number) for number in numbers)
    assert Control({"type": "test"}) in joined.seen(joined.agent)


def test_mux_copies_what_its_owner_may_change() -> None:
    joined = Joined()
    number = opened(joined)
    changing = bytearray(b"before")
    joined.broker.mux.send(number, memoryview(changing))
    joined.broker.mux.send(number, memoryview(changing).toreadonly())
    joined.broker.mux.send(number, memoryview(b"abcdef")[::2])
    joined.broker.mux.send(number, memoryview(b"abcdefgh").cast("I"))
    changing[:] = b"after!"
    joined.pump()
    assert [event.data for event in joined.seen(joined.agent) if isinstance(event, Data)] == [
        b"before",
        b"before",
        b"ace",
        b"abcdefgh",
    ]


def test_mux_carries_control_messages_and_answers_pings() -> None:
    joined = Joined()
    joined.agent.mux.control({"type": "one"})
    joined.agent.mux.control({"type": "two", "bytes": b"\xff", "list": [1, None]})
    joined.agent.mux.ping(2**63 - 1)
    joined.pump()
    assert joined.seen(joined.broker) == [
        Control({"type": "one"}),
        Control({"type": "two", "bytes": b"\xff", "list": [1, None]}),
    ]
    assert joined.seen(joined.agent) == [Pong(2**63 - 1)]


def test_mux_answers_a_flood_of_pings_with_the_newest_only() -> None:
    mux = Mux(side=Side.BROKER)
    mux.attach(peer_received=0)
    for _ in range(100):
        mux.receive(encode_frames(*([12, 0, token, None] for token in range(100))))
    answers = decode_frames(mux.take_outgoing())
    assert [frame[2] for frame in answers] == list(range(84, 100))


def test_mux_tells_why_the_peer_closes() -> None:
    joined = Joined()
    closed = encode_close("REVOKED", "this Hub was revoked")
    assert joined.agent.mux.receive(closed) == [Closed("REVOKED", "this Hub was revoked")]


def test_mux_reads_messages_of_any_number_of_frames() -> None:
    mux = Mux(side=Side.BROKER)
    mux.attach(peer_received=0)
    assert mux.receive(b"") == []
    assert len(mux.receive(encode_frames(*([13, 0, 1, None] for _ in range(1000))))) == 1000
    assert mux.receive(codec.pack([13, 0, 1, None])) == [Pong(1)]
