"""Whatever a peer sends, a multiplexer answers with events or with a ProtocolError."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.joined import Joined

from sth_protocol import codec, frames
from sth_protocol.errors import ProtocolError, SessionLost, SthError, tree
from sth_protocol.events import Control
from sth_protocol.handshake import decode_answer, decode_hello
from sth_protocol.mux import Mux


def nested(depth: int) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


CODES = {each.code for each in tree(ProtocolError)}
INTEGERS = st.one_of(
    st.integers(0, 9),
    st.sampled_from([2**14, 2**14 + 1, 2**20, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63)]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), INTEGERS, st.floats(), st.text(max_size=5), st.binary(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
DEEP = st.integers(20, 60).map(nested)
MAPS = st.dictionaries(
    st.sampled_from(["code", "message", "type", "id", "kind"]), SCALARS, max_size=4
).map(codec.pack)
PAYLOADS = st.one_of(st.none(), INTEGERS, st.binary(max_size=40), MAPS, VALUES)
# Frames of a known type with a payload of the right type, so that they get past the first checks.
PAYLOADS_THAT_FIT: dict[str, st.SearchStrategy[object]] = {
    "map": MAPS,
    "bytes": st.binary(max_size=40),
    "integer": INTEGERS,
    "nil": st.none(),
}
FITTING = st.sampled_from(list(frames.SHAPES.items())).flatmap(
    lambda entry: st.tuples(
        st.just(int(entry[0])),
        st.integers(0, 6) if entry[1].on_channel else st.just(0),
        INTEGERS if entry[1].has_arg else st.just(0),
        PAYLOADS_THAT_FIT[entry[1].payload],
    )
)
LOOSE = st.tuples(st.integers(-1, 20), INTEGERS, INTEGERS, PAYLOADS)


def busy_broker() -> Mux:
    """A broker with a channel in every state that a peer can meet."""
    joined = Joined()
    agent, broker = joined.agent.mux, joined.broker.mux
    offered, accepted, finished = (agent.open({"kind": "test"}) for _ in range(3))
    own = [broker.open({"kind": "test"}) for _ in range(3)]
    joined.pump()
    broker.accept(accepted)
    broker.accept(finished)
    agent.accept(own[1])
    agent.send(offered, b"early")
    agent.send(accepted, b"data", more=True)
    broker.send(own[1], b"data")
    agent.send(finished, b"not consumed")
    agent.finish(finished)
    joined.pump()
    broker.finish(finished)
    broker.reset(own[2], "TEST")
    joined.pump()
    return broker


def receive_all(mux: Mux, *messages: bytes) -> None:
    """Only a ProtocolError may come out, and nothing works after it."""
    try:
        for message in messages:
            mux.receive(message)
            mux.flush_consumed()
            mux.take_outgoing()
    except ProtocolError as error:
        assert error.code in CODES and error.message
        assert not mux.has_outgoing and not mux.take_outgoing() and not mux.resumable
        with pytest.raises(SessionLost):
            mux.attach(peer_received=0)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_mux_answers_arbitrary_bytes_with_protocol_errors_only(messages: list[bytes]) -> None:
    receive_all(busy_broker(), *messages)


@given(st.lists(VALUES, max_size=4))
def test_mux_answers_arbitrary_values_with_protocol_errors_only(values: list[object]) -> None:
    receive_all(busy_broker(), b"".join(codec.pack(each) for each in values))


@given(st.lists(st.one_of(FITTING, LOOSE).map(list), max_size=8))
def test_mux_answers_arbitrary_frames_with_protocol_errors_only(raw: list[list[object]]) -> None:
    receive_all(busy_broker(), *(codec.pack(each) for each in raw))


@given(st.lists(FITTING.map(list), min_size=1, max_size=8), st.data())
def test_mux_answers_mutated_messages_with_protocol_errors_only(
    raw: list[list[object]], data: st.DataObject
) -> None:
    message = bytearray(b"".join(codec.pack(each) for each in raw))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(message)))
    receive_all(busy_broker(), bytes(message[:cut]), bytes(message[cut:]))


@given(
    st.one_of(
        st.binary(max_size=200),
        VALUES.map(codec.pack),
        st.one_of(FITTING, LOOSE).map(list).map(codec.pack),
    )
)
def test_handshake_answers_arbitrary_messages_with_protocol_errors_only(message: bytes) -> None:
    for decode in (decode_hello, decode_answer):
        with contextlib.suppress(ProtocolError):
            decode(message)


HELLO_FIELDS = st.fixed_dictionaries(
    {
        "versions": st.one_of(st.just([1]), VALUES),
        "agent_boot": st.one_of(st.just(bytes(16)), VALUES),
        "epoch": INTEGERS,
        "hub": st.one_of(
            st.just({"name": "a", "agent_version": "1", "arch": "x", "os": "y", "python": "3"}),
            VALUES,
        ),
    },
    optional={"features": VALUES, "broker_boot": VALUES, "received": INTEGERS, "later": VALUES},
)


@given(HELLO_FIELDS)
def test_handshake_answers_arbitrary_fields_with_protocol_errors_only(
    fields: dict[str, object],
) -> None:
    with contextlib.suppress(ProtocolError):
        decode_hello(codec.pack([1, 0, 0, codec.pack(fields)]))


@given(st.dictionaries(st.one_of(st.text(), st.integers()), st.one_of(VALUES, DEEP)))
def test_mux_takes_any_map_to_the_peer_or_refuses_it_at_once(message: dict[str, object]) -> None:
    joined = Joined()
    try:
        joined.agent.mux.control(message)
    except SthError as error:
        assert not isinstance(error, ProtocolError)
        assert not joined.agent.mux.has_outgoing
        return
    joined.pump()
    assert repr(joined.seen(joined.broker)) == repr([Control(message)])


def test_mux_fuzzing_starts_from_a_session_in_use() -> None:
    """The planted states are there, or the tests above would prove little."""
    assert len(busy_broker().channels()) == 5
