import pytest
from hypothesis import given
from hypothesis import strategies as st

from sth_broker.topic_kinds import BATCH_BYTES, TEXT_CUT_BYTES, Former, Kind, normalised
from sth_protocol.batch import MAX_PAYLOAD
from sth_protocol.errors import TooLarge, UnsupportedMediaType


def taken(former: Former, *, everything: bool = False) -> list[tuple[bytes, int]]:
    return [(bytes(piece.payload), piece.count) for piece in former.take(everything=everything)]


def all_of(kind: Kind, chunks: list[bytes]) -> list[tuple[bytes, int]]:
    """Everything, taken whenever something can be."""
    former = Former(kind)
    found = []
    for chunk in chunks:
        former.add(chunk)
        found += taken(former)
    former.finish()
    while former.size:
        found += taken(former, everything=True)
    return found


@given(st.lists(st.binary(max_size=20) | st.just(b"a\nb\n"), max_size=20))
def test_former_of_ndjson_keeps_every_byte_and_cuts_at_lines(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    whole = data if not data or data.endswith(b"\n") else data + b"\n"
    pieces = all_of("ndjson", chunks)
    assert b"".join(payload for payload, _ in pieces) == whole
    assert all(payload.endswith(b"\n") for payload, _ in pieces)
    assert all(payload.count(b"\n") == count for payload, count in pieces)


@given(st.sampled_from(["text", "octet"]), st.lists(st.binary(max_size=20), max_size=20))
def test_former_of_bytes_keeps_every_byte(kind: Kind, chunks: list[bytes]) -> None:
    pieces = all_of(kind, chunks)
    assert b"".join(payload for payload, _ in pieces) == b"".join(chunks)
    assert all(count == 1 and payload for payload, count in pieces)


def test_former_holds_a_line_that_is_not_whole() -> None:
    former = Former("ndjson")
    former.add(b'{"a":1}\n{"b"')
    assert taken(former) == [(b'{"a":1}\n', 1)]
    assert (former.ready, former.size) == (False, 4)
    former.add(b":2}\n")
    assert taken(former) == [(b'{"b":2}\n', 1)]


def test_former_cuts_large_input_into_batches() -> None:
    former = Former("ndjson")
    former.add(b"x" * 99 + b"\n")
    former.add((b"x" * 99 + b"\n") * 9999)
    pieces = taken(former)
    assert sum(count for _, count in pieces) == 10_000
    assert all(len(payload) <= BATCH_BYTES for payload, _ in pieces)
    assert len(pieces) == 4


def test_former_takes_a_line_as_large_as_a_batch_can_be() -> None:
    line = b"x" * (MAX_PAYLOAD - 1) + b"\n"
    assert all_of("ndjson", [b"a\n", line, b"b"]) == [(b"a\n", 1), (line, 1), (b"b\n", 1)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_former_refuses_a_longer_line_after_the_lines_before_it(end: bytes) -> None:
    former = Former("ndjson")
    former.add(b"good\n" + b"x" * MAX_PAYLOAD + b"x" + end)
    assert taken(former) == [(b"good\n", 1)]
    with pytest.raises(TooLarge):
        former.take()


def test_former_of_text_cuts_after_a_newline() -> None:
    former = Former("text")
    former.add(b"one\ntwo\nthr")
    assert taken(former) == [(b"one\ntwo\n", 1)]
    assert former.holds_text and not former.ready
    assert taken(former, everything=True) == [(b"thr", 1)]
    assert not former.holds_text


def test_former_of_text_without_a_newline_cuts_between_characters() -> None:
    former = Former("text")
    former.add(b"x" + "ü".encode() * TEXT_CUT_BYTES)
    pieces = taken(former)
    assert len(pieces) == 2
    for payload, _ in pieces:
        payload.decode()


@pytest.mark.parametrize(
    ("given_type", "plain"),
    [("Text/Plain; charset=utf-8", "text/plain"), ("application/x-ndjson", "application/x-ndjson")],
)
def test_content_type_is_normalised(given_type: str, plain: str) -> None:
    assert normalised(given_type) == plain


@pytest.mark.parametrize("given_type", ["", "text/html", "application/json"])
def test_content_type_of_no_topic_is_refused(given_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        normalised(given_type)
