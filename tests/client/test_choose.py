"""From what a person types to an id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sth_client.choose import Candidate, choose, did_you_mean, short_ids
from sth_protocol.errors import Conflict, NotFound

KNOWN = (Candidate("aaaa1111", "web"), Candidate("aaaa2222", "worker"), Candidate("bbbb", "aaaa1"))


def chosen(reference: str, *candidates: Candidate) -> str:
    return choose(reference, candidates or KNOWN, what="Hub", list_with="sth hub ls")


@pytest.mark.parametrize(
    ("reference", "found"),
    [("aaaa1111", "aaaa1111"), ("worker", "aaaa2222"), ("we", "aaaa1111"), ("b", "bbbb")],
)
def test_id_name_or_beginning_is_found(reference: str, found: str) -> None:
    assert chosen(reference) == found


def test_whole_name_goes_before_the_beginning_of_an_id() -> None:
    assert chosen("aaaa1") == "bbbb"


def test_ambiguous_beginning_lists_the_matches() -> None:
    with pytest.raises(Conflict, match="'aaaa' is the beginning or the name of 3 Hubs") as caught:
        chosen("aaaa")
    assert "aaaa1111 (web)" in caught.value.hint


def test_name_of_several_means_the_one_preferred() -> None:
    old, new = Candidate("1", "x"), Candidate("2", "x", preferred=True)
    assert chosen("x", old, new) == "2"
    with pytest.raises(Conflict):
        chosen("x", old, Candidate("3", "x"))


def test_unknown_one_gets_a_suggestion_or_the_list() -> None:
    with pytest.raises(NotFound, match="there is no Hub 'wroker'") as caught:
        chosen("wroker")
    assert caught.value.hint == "did you mean worker?"
    with pytest.raises(NotFound) as caught:
        chosen("zzz")
    assert caught.value.hint == "`sth hub ls` shows what there is"


def test_nothing_is_not_the_beginning_of_everything() -> None:
    with pytest.raises(NotFound):
        chosen("")


def test_did_you_mean_is_empty_for_what_is_far() -> None:
    assert did_you_mean("xyz", ["deploy", "ps"]) == ""
    assert did_you_mean("deplyo", ["deploy", "ps"]) == "deploy"


@given(st.sets(st.text("abc", min_size=12, max_size=12), max_size=30))
def test_short_ids_are_unambiguous_beginnings(ids: set[str]) -> None:
    short = short_ids(ids)
    assert set(short) == ids
    for each, beginning in short.items():
        assert len(beginning) >= 8
        assert [other for other in ids if other.startswith(beginning)] == [each]
