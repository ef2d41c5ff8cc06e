"""Frames found in peeked bytes, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sth_agent.output_walker import Cut, Mark, Marks, OutputWalker
from sth_sandbox.runners import frames


def stream_of(payloads: list[bytes]) -> bytes:
    offset = 0
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(frames.pack_frame(frames.DATA, payload, offset=offset))
        offset += len(payload)
    return b"".join(parts)


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@given(
    st.lists(st.binary(min_size=1, max_size=100), max_size=10),
    st.lists(st.integers(min_value=0, max_value=2000), max_size=20),
)
def test_walker_finds_the_same_stream_however_it_is_cut(
    payloads: list[bytes], cuts: list[int]
) -> None:
    data = stream_of(payloads)
    walker = OutputWalker()
    found = b""
    ends: list[int] = []
    for chunk in cut_up(data, cuts):
        for piece in walker.feed(chunk):
            assert piece.offset == len(found)
            found += piece.data
            assert piece.end == len(found)
            if piece.last:
                ends.append(piece.position)
    assert found == b"".join(payloads)
    position = 0
    wanted: list[int] = []
    for payload in payloads:
        position += frames.HEADER_BYTES + len(payload)
        wanted.append(position)
    assert ends == wanted
    assert walker.position == len(data)


def test_walker_goes_on_inside_a_frame() -> None:
    data = stream_of([b"0123456789", b"abc"])
    first = list(OutputWalker().feed(data[: frames.HEADER_BYTES + 4]))
    assert [bytes(each.data) for each in first] == [b"0123"]
    cut = first[-1].cut
    assert cut is not None
    walker = OutputWalker(position=first[-1].position, inside=cut)
    rest = list(walker.feed(data[first[-1].position :]))
    assert [(each.offset, bytes(each.data), each.last) for each in rest] == [
        (4, b"456789", True),
        (10, b"abc", True),
    ]
    assert rest[-1].position == len(data)


def test_walker_refuses_what_is_no_frame() -> None:
    with pytest.raises(frames.FrameError):
        list(OutputWalker().feed(b"\xff" * 64))


def test_walker_gives_an_empty_frame_as_a_piece() -> None:
    pieces = list(OutputWalker().feed(frames.pack_frame(frames.END)))
    assert [(each.header.type, each.last) for each in pieces] == [(frames.END, True)]


def test_marks_give_the_last_place_that_was_consumed() -> None:
    marks = Marks()
    for offset, position in ((10, 42), (20, 84), (30, 126)):
        marks.add(Mark(offset, position))
    assert marks.reached(9) is None
    assert marks.reached(25) == Mark(20, 84)
    assert marks.reached(25) is None
    assert marks.reached(30) == Mark(30, 126)


def test_piece_without_its_beginning_keeps_its_end() -> None:
    (piece,) = OutputWalker().feed(frames.pack_frame(frames.DATA, b"abcdef", offset=100))
    rest = piece.without(2)
    assert (rest.offset, bytes(rest.data), rest.end) == (102, b"cdef", piece.end)
    assert rest.cut is None


def test_piece_inside_a_frame_says_where_it_cuts() -> None:
    data = frames.pack_frame(frames.DATA, b"abcdef", offset=100)
    (piece,) = OutputWalker().feed(data[:-2])
    assert piece.cut == Cut(piece.header, 4)
    assert piece.without(1).cut == Cut(piece.header, 4)
