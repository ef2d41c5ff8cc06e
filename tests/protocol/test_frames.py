import pytest

from sth_protocol import codec, frames
from sth_protocol.errors import BadFrame, FrameTooLarge, ProtocolError, TooLarge
from sth_protocol.frames import FrameType

MAP = codec.pack({"code": "TEST"})
VALID: dict[FrameType, list[object]] = {
    FrameType.HELLO: [1, 0, 0, MAP],
    FrameType.WELCOME: [2, 0, 0, MAP],
    FrameType.OPEN: [3, 1, 16384, MAP],
    FrameType.ACCEPT: [4, 1, 16384, MAP],
    FrameType.DATA: [5, 1, 0, b"data"],
    FrameType.MORE: [6, 1, 0, b"data"],
    FrameType.FIN: [7, 1, 0, None],
    FrameType.RESET: [8, 1, 0, MAP],
    FrameType.CREDIT: [9, 1, 16384, 0],
    FrameType.CONTROL: [10, 0, 0, MAP],
    FrameType.ACK: [11, 0, 7, None],
    FrameType.PING: [12, 0, 7, None],
    FrameType.PONG: [13, 0, 7, None],
    FrameType.CLOSE: [14, 0, 0, MAP],
    FrameType.DONE: [15, 1, 0, None],
}
WRONG_PAYLOADS: list[object] = [None, True, 7, -1, 2**63, 1.5, "text", b"bytes", [], {}]


def decode_one(value: object) -> frames.Frame:
    [frame] = frames.decode(codec.pack(value))
    return frame


def test_frame_table_covers_every_type() -> None:
    assert set(frames.SHAPES) == set(VALID) == set(FrameType)


def test_frames_that_are_numbered_are_those_of_the_documentation() -> None:
    assert {kind.name for kind in frames.NUMBERED} == {
        "OPEN",
        "ACCEPT",
        "DATA",
        "MORE",
        "FIN",
        "RESET",
        "CONTROL",
        "DONE",
    }


@pytest.mark.parametrize("kind", list(FrameType))
def test_frame_that_is_valid_is_read(kind: FrameType) -> None:
    assert decode_one(VALID[kind]) == tuple(VALID[kind])


@pytest.mark.parametrize("kind", list(FrameType))
@pytest.mark.parametrize("payload", WRONG_PAYLOADS, ids=repr)
def test_frame_with_a_payload_of_another_type_is_refused(kind: FrameType, payload: object) -> None:
    value = [*VALID[kind][:3], payload]
    shape = frames.SHAPES[kind].payload
    fits = {
        "map": isinstance(payload, bytes),
        "bytes": isinstance(payload, bytes),
        "nil": payload is None,
        "integer": type(payload) is int and 0 <= payload < 2**63,
    }[shape]
    if fits:
        assert decode_one(value)[3] == payload
    else:
        with pytest.raises(BadFrame, match=kind.name):
            decode_one(value)


@pytest.mark.parametrize("kind", list(FrameType))
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("element", [None, True, -1, 2**63, 1.0, "1", b"1", [1]], ids=repr)
def test_frame_with_a_wrong_element_is_refused(
    kind: FrameType, place: int, element: object
) -> None:
    value = list(VALID[kind])
    value[place] = element
    with pytest.raises(BadFrame):
        decode_one(value)


@pytest.mark.parametrize("kind", list(FrameType))
def test_frame_on_the_wrong_channel_is_refused(kind: FrameType) -> None:
    value = list(VALID[kind])
    value[1] = 0 if frames.SHAPES[kind].on_channel else 1
    with pytest.raises(BadFrame, match="on channel"):
        decode_one(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "text",
        {},
        [],
        [5],
        [5, 1, 0],
        [5, 1, 0, b"", b""],
        [0, 0, 0, None],
        [16, 0, 0, None],
        [10, 0, 1, MAP],
    ],
    ids=repr,
)
def test_frame_of_no_shape_is_refused(value: object) -> None:
    with pytest.raises(BadFrame):
        decode_one(value)


def test_frame_that_is_too_large_is_refused_on_both_sides() -> None:
    most = bytes(frames.MAX_PAYLOAD)
    assert decode_one([5, 1, 0, most])[3] == most
    with pytest.raises(FrameTooLarge):
        decode_one([5, 1, 0, most + b"x"])
    with pytest.raises(FrameTooLarge):
        decode_one([10, 0, 0, bytes(frames.MAX_MAP + 1)])
    with pytest.raises(FrameTooLarge):
        list(frames.decode(bytes(frames.MAX_MESSAGE + 1)))
    with pytest.raises(TooLarge) as caught:
        frames.encode_map(FrameType.CONTROL, 0, 0, {"list": bytes(frames.MAX_MAP)})
    assert not isinstance(caught.value, ProtocolError)
    assert caught.value.hint


def test_frame_of_data_is_plain_msgpack() -> None:
    for kind in (FrameType.DATA, FrameType.MORE):
        head = frames.data_head(kind, 70_000)
        message = frames.encode_data(head, 2**40, memoryview(b"some data")[5:])
        assert codec.unpack(message) == [int(kind), 70_000, 2**40, b"data"]


def test_frame_of_a_map_is_read_back() -> None:
    frame = frames.encode_map(FrameType.OPEN, 3, 16384, {"kind": "test", "bytes": b"\xff"})
    [(kind, channel, arg, payload)] = frames.decode(frame)
    assert (kind, channel, arg) == (FrameType.OPEN, 3, 16384)
    assert frames.decode_map(payload) == {"kind": "test", "bytes": b"\xff"}


@pytest.mark.parametrize("payload", [b"", b"\xc1", codec.pack([]), codec.pack(None), MAP + MAP])
def test_frame_whose_map_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        frames.decode_map(payload)


def test_frame_whose_map_has_bytes_for_keys_is_refused() -> None:
    with pytest.raises(BadFrame, match="words for keys"):
        frames.decode_map(b"\x81\xc4\x01a\x01")


def test_frames_before_a_bad_one_are_given_before_the_error() -> None:
    given = frames.decode(codec.pack(VALID[FrameType.PING]) + codec.pack([99, 0, 0, None]))
    assert next(given)[0] is FrameType.PING
    with pytest.raises(BadFrame, match="99"):
        next(given)


def test_text_for_the_last_words_is_cut_and_always_unicode() -> None:
    assert frames.clean("x" * 10_000) == "x" * frames.MAX_TEXT
    assert frames.clean("a\ud800b") == "a?b"
    assert frames.clean("äöü", 2) == "äö"
