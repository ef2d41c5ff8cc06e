import pytest

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Frame, FrameError, FrameReader, Header


def test_pack_frame_is_read_back_with_every_field() -> None:
    packed = frames.pack_frame(
        frames.DATA, b"a\nb\n", flags=frames.RECORDS, count=2, offset=9, number=4
    )
    header = Header(4, frames.DATA, frames.RECORDS, 2, 9, 4)
    assert len(packed) == frames.HEADER_BYTES + 4
    assert FrameReader().feed(packed) == [Frame(header, b"a\nb\n")]


@pytest.mark.parametrize("step", [1, 31, 32, 33, 1000])
def test_reader_gives_the_same_frames_however_the_bytes_are_cut(step: int) -> None:
    stream = b"".join(
        frames.pack_frame(frames.DATA, bytes([n]) * n, offset=n, number=n) for n in range(40)
    )
    reader = FrameReader()
    got = [f for at in range(0, len(stream), step) for f in reader.feed(stream[at : at + step])]
    assert [frame.payload for frame in got] == [bytes([n]) * n for n in range(40)]
    assert reader.pending == 0


def test_walk_stops_before_a_frame_that_is_not_whole() -> None:
    stream = frames.pack_frame(frames.DATA, b"whole") + frames.pack_frame(frames.DATA, b"cut")[:-1]
    assert [(h.length, at) for h, at in frames.walk(stream)] == [(5, frames.HEADER_BYTES)]


def test_reader_refuses_an_unknown_type() -> None:
    with pytest.raises(FrameError, match="no type of frame"):
        FrameReader().feed(frames.pack_header(99, 0))


def test_reader_refuses_a_length_above_the_limit_before_it_is_read() -> None:
    with pytest.raises(FrameError, match="at most"):
        FrameReader().feed(b"\xff\xff\xff\x7f\x01" + bytes(27))


def test_pack_refuses_a_payload_above_the_limit() -> None:
    with pytest.raises(FrameError, match="at most"):
        frames.pack_frame(frames.DATA, bytes(frames.MAX_PAYLOAD + 1))


@pytest.mark.parametrize("place", [{"offset": 2**63 + 1}, {"number": 2**64 - 1}])
def test_reader_refuses_a_place_beyond_all_bounds(place: dict[str, int]) -> None:
    with pytest.raises(FrameError, match="out of bounds"):
        FrameReader().feed(frames.pack_header(frames.DATA, 0, **place))


def test_reader_gives_what_stands_before_a_broken_frame() -> None:
    reader = FrameReader()
    good = frames.pack_frame(frames.DATA, b"good")
    assert [each.payload for each in reader.feed(good + b"x" * 32)] == [b"good"]
    with pytest.raises(FrameError):
        reader.feed(b"")
