"""Every rule of the wire that a peer can break, and the code that it gets for it."""

import pytest
from tests.support.joined import Joined, encode_frames

from sth_protocol import codec
from sth_protocol.errors import (
    BadFrame,
    BadHandshake,
    ChannelViolation,
    FlowControlViolated,
    FrameTooLarge,
    ProtocolError,
)
from sth_protocol.mux import Limits
from sth_protocol.window import MAX_WINDOW, MIN_WINDOW

MAP = codec.pack({"code": "TEST"})
# The channels of `broker`, by what state they are in.
OFFERED, ACCEPTED, FINISHED, OVER = 1, 3, 5, 7
ASKED, OPEN, RESET = 2, 4, 6
NEXT = 9


@pytest.fixture
def joined() -> Joined:
    joined = Joined()
    agent, broker = joined.agent.mux, joined.broker.mux
    numbers = [agent.open({}) for _ in range(4)] + [broker.open({}) for _ in range(3)]
    assert numbers == [OFFERED, ACCEPTED, FINISHED, OVER, ASKED, OPEN, RESET]
    joined.pump()
    for number in (ACCEPTED, FINISHED, OVER):
        broker.accept(number)
    agent.accept(OPEN)
    agent.send(ACCEPTED, b"0123456789")
    agent.send(FINISHED, b"0123456789")
    broker.send(OPEN, b"0123456789")
    for number in (FINISHED, OVER):
        agent.finish(number)
    broker.finish(OVER)
    broker.reset(RESET, "TEST")
    joined.pump()
    joined.agent.mux.flush_consumed()
    joined.pump()
    return joined


VIOLATIONS: list[tuple[str, list[object], type[ProtocolError]]] = [
    ("handshake", [1, 0, 0, MAP], BadHandshake),
    ("welcome", [2, 0, 0, MAP], BadHandshake),
    ("open of a number of ours", [3, 8, MIN_WINDOW, MAP], ChannelViolation),
    ("open of a gap", [3, NEXT + 2, MIN_WINDOW, MAP], ChannelViolation),
    ("open again", [3, ACCEPTED, MIN_WINDOW, MAP], ChannelViolation),
    ("open of what is over", [3, OVER, MIN_WINDOW, MAP], ChannelViolation),
    ("open with too little credit", [3, NEXT, MIN_WINDOW - 1, MAP], FlowControlViolated),
    ("open with too much credit", [3, NEXT, MAX_WINDOW + 1, MAP], FlowControlViolated),
    ("open with no map", [3, NEXT, MIN_WINDOW, b"\xc1"], BadFrame),
    ("open with no words", [3, NEXT, MIN_WINDOW, b"\x81\xa1\xff\x01"], BadFrame),
    ("accept of its own", [4, OFFERED, MIN_WINDOW, MAP], ChannelViolation),
    ("accept again", [4, OPEN, MIN_WINDOW, MAP], ChannelViolation),
    ("accept of nothing", [4, NEXT, MIN_WINDOW, MAP], ChannelViolation),
    ("accept with too much credit", [4, ASKED, MAX_WINDOW + 1, MAP], FlowControlViolated),
    ("data of nothing", [5, NEXT, 0, b"x"], ChannelViolation),
    ("data before accepting", [5, ASKED, 0, b"x"], ChannelViolation),
    ("data again", [5, ACCEPTED, 0, b"x"], ChannelViolation),
    ("data with a gap", [5, ACCEPTED, 11, b"x"], ChannelViolation),
    ("data after the end", [5, FINISHED, 10, b"x"], ChannelViolation),
    ("data without a byte", [5, ACCEPTED, 10, b""], ChannelViolation),
    ("more without a byte", [6, ACCEPTED, 10, b""], ChannelViolation),
    ("data beyond credit", [5, ACCEPTED, 10, bytes(MIN_WINDOW)], FlowControlViolated),
    ("data beyond all", [5, ACCEPTED, 10, bytes(256 * 1024 + 1)], FrameTooLarge),
    ("end of nothing", [7, NEXT, 0, None], ChannelViolation),
    ("end before accepting", [7, ASKED, 0, None], ChannelViolation),
    ("end again", [7, FINISHED, 10, None], ChannelViolation),
    ("end before its bytes", [7, ACCEPTED, 9, None], ChannelViolation),
    ("end beyond its bytes", [7, ACCEPTED, 11, None], ChannelViolation),
    ("reset of nothing", [8, NEXT, 0, MAP], ChannelViolation),
    ("reset without a code", [8, OPEN, 0, codec.pack({})], BadFrame),
    ("reset with a wrong message", [8, OPEN, 0, codec.pack({"code": "A", "message": 1})], BadFrame),
    ("reset that consumed too much", [8, OPEN, 11, MAP], FlowControlViolated),
    ("credit of nothing", [9, NEXT, MIN_WINDOW, 0], ChannelViolation),
    ("credit for too much", [9, OPEN, MAX_WINDOW + 11, 10], FlowControlViolated),
    ("credit that consumed too much", [9, OPEN, MIN_WINDOW, 11], FlowControlViolated),
    ("control without a map", [10, 0, 0, b"\x01"], BadFrame),
    ("control too large", [10, 0, 0, bytes(64 * 1024 + 1)], FrameTooLarge),
    ("control on a channel", [10, OPEN, 0, MAP], BadFrame),
    ("ack of too much", [11, 0, 2**40, None], ProtocolError),
    ("ack of less than before", [11, 0, 0, None], ProtocolError),
    ("close without a code", [14, 0, 0, codec.pack({})], BadFrame),
    ("done of nothing", [15, NEXT, 0, None], ChannelViolation),
    ("done before the end", [15, OPEN, 10, None], ChannelViolation),
    ("unknown type", [16, 0, 0, None], BadFrame),
    ("no frame", ["data"], BadFrame),
]


@pytest.mark.parametrize(("frame", "error"), [each[1:] for each in VIOLATIONS], ids=lambda _: "")
def test_mux_refuses_a_violation_with_its_code(
    joined: Joined, frame: list[object], error: type[ProtocolError]
) -> None:
    with pytest.raises(ProtocolError) as caught:
        joined.broker.mux.receive(encode_frames(frame))
    assert type(caught.value) is error
    assert caught.value.message
    assert not joined.broker.mux.resumable


def test_mux_refuses_a_done_that_is_not_at_the_end(joined: Joined) -> None:
    joined.broker.mux.finish(OPEN)
    joined.broker.mux.take_outgoing()
    with pytest.raises(ChannelViolation, match="9 of 10"):
        joined.broker.mux.receive(encode_frames([15, OPEN, 9, None]))


def test_mux_refuses_credit_after_done(joined: Joined) -> None:
    joined.broker.mux.finish(OPEN)
    joined.broker.mux.take_outgoing()
    joined.broker.mux.receive(encode_frames([15, OPEN, 10, None]))
    with pytest.raises(ChannelViolation):
        joined.broker.mux.receive(encode_frames([9, OPEN, MIN_WINDOW, 10]))


@pytest.mark.parametrize(
    "frame",
    [
        [4, RESET, MIN_WINDOW, MAP],
        [5, RESET, 0, b"anything"],
        [6, OVER, 10**9, b"anywhere"],
        [7, RESET, 0, None],
        [8, RESET, 0, MAP],
        [9, RESET, MIN_WINDOW, 0],
        [15, RESET, 0, None],
    ],
    ids=repr,
)
def test_mux_ignores_frames_for_channels_that_are_over(joined: Joined, frame: list[object]) -> None:
    assert joined.broker.mux.receive(encode_frames(frame)) == []
    assert joined.broker.mux.resumable


def test_mux_refuses_more_channels_than_the_limit() -> None:
    joined = Joined(Limits(channels=2))
    for number in (1, 3):
        joined.broker.mux.receive(encode_frames([3, number, MIN_WINDOW, MAP]))
    with pytest.raises(ChannelViolation, match="more than 2"):
        joined.broker.mux.receive(encode_frames([3, 5, MIN_WINDOW, MAP]))


def test_mux_refuses_a_peer_that_asks_and_takes_no_answer() -> None:
    joined = Joined(Limits(control=1000, channels=10**6))
    number = 1
    with pytest.raises(FlowControlViolated, match="answers wait"):
        while number < 10_000:
            joined.broker.mux.receive(encode_frames([3, number, MIN_WINDOW, MAP]))
            joined.broker.mux.reset(number, "TEST")
            number += 2
    assert number < 1000


def test_mux_refuses_what_is_cut_in_the_middle(joined: Joined) -> None:
    message = encode_frames([12, 0, 1, None], [5, ACCEPTED, 10, b"data"])
    with pytest.raises(BadFrame, match="cut"):
        joined.broker.mux.receive(message[:-2])
