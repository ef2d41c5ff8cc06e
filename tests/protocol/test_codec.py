import pytest

from sth_protocol import codec
from sth_protocol.errors import BadFrame, FrameTooLarge


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 2**64 - 1, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": b""}}]
)
def test_codec_round_trip(value: object) -> None:
    assert codec.unpack(codec.pack(value)) == value


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**64, "\ud800", nested(2000)])
def test_codec_refuses_what_it_cannot_say(value: object) -> None:
    with pytest.raises(BadFrame):
        codec.pack(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 values"),
        (b"\x01\x02", "2 values"),
        (b"\xc1", "not msgpack"),
        (b"\x92\x01", "cut in the middle"),
        (b"\x01\x92\x01", "cut in the middle"),
        (b"\x94\x05\x01\x00", "cut in the middle"),
        (b"\xc6\x00\x00\x00\x05abc", "cut in the middle"),
        (b"\xc6\xff\xff\xff\xff", "cut in the middle"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\xdf\xff\xff\xff\xff", "not msgpack"),
        (b"\xa2\xff\xfe", "not msgpack"),
        (b"\x81\x01\x01", "not msgpack"),
        (b"\x81\x90\x01", "not msgpack"),
        (b"\xd4\x05\x00", "not msgpack"),
        (b"\xd6\xff\x00\x00\x00\x00", "not msgpack"),
        (b"\x91" * 5000 + b"\x01", "not msgpack"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_codec_refuses_what_is_malformed(data: bytes, why: str) -> None:
    with pytest.raises(BadFrame, match=why):
        codec.unpack(data)


def test_codec_refuses_what_is_too_deep_for_those_who_walk_through_it() -> None:
    assert codec.unpack(codec.pack(nested(codec.MAX_DEPTH))) == nested(codec.MAX_DEPTH)
    with pytest.raises(BadFrame, match="deep"):
        codec.unpack(codec.pack(nested(codec.MAX_DEPTH + 1)))
    with pytest.raises(BadFrame, match="deep"):
        codec.unpack(codec.pack({"a": {"b": nested(codec.MAX_DEPTH)}}))


def test_codec_refuses_what_is_too_long_or_has_too_many_items() -> None:
    with pytest.raises(FrameTooLarge):
        codec.unpack(bytes(codec.MAX_MESSAGE + 1))
    with pytest.raises(BadFrame):
        codec.unpack(codec.pack([0] * (codec.MAX_ITEMS + 1)))
    assert len(codec.unpack(codec.pack([0] * codec.MAX_ITEMS))) == codec.MAX_ITEMS


def test_codec_reads_values_one_after_the_other() -> None:
    assert list(codec.unpack_all(codec.pack(1) + codec.pack("two") + codec.pack(b"3"))) == [
        1,
        "two",
        b"3",
    ]
    assert list(codec.unpack_all(b"")) == []
