import re

import pytest

import sth_protocol.lifecycle
from sth_protocol import errors
from sth_protocol.errors import Internal, NotFound, ProtocolError, SthError, from_wire, tree

# The module is named so that its error is in the tree.
assert sth_protocol.lifecycle.InvalidTransition in tree()


def own_errors() -> list[type[SthError]]:
    """The tree without what tests elsewhere may add to it."""
    return [each for each in tree() if each.__module__.startswith("sth_")]


def test_error_codes_are_unique() -> None:
    codes = [each.code for each in own_errors() if each is not SthError]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", own_errors(), ids=lambda kind: kind.__name__)
def test_error_has_a_code_a_status_and_an_exit_code(kind: type[SthError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]+", kind.code)
    assert 400 <= kind.http_status <= 599
    assert 1 <= kind.exit_code <= 125


@pytest.mark.parametrize("kind", own_errors()[1:], ids=lambda kind: kind.__name__)
def test_error_comes_back_from_the_wire_as_it_was(kind: type[SthError]) -> None:
    error = kind("what and why", hint="what to do")
    back = from_wire(error.to_wire())
    assert type(back) is kind
    assert (back.message, back.hint) == ("what and why", "what to do")


def test_error_without_a_hint_takes_that_of_its_kind() -> None:
    assert errors.SessionLost("gone").hint == "try again"
    assert NotFound("no such thing").hint == ""


def test_error_of_an_unknown_code_is_internal_and_names_it() -> None:
    error = from_wire({"code": "FROM_THE_FUTURE", "message": "hm"})
    assert type(error) is Internal
    assert "FROM_THE_FUTURE" in error.message and "hm" in error.message


@pytest.mark.parametrize("message", [{}, {"code": None}, {"code": 7, "message": [1]}])
def test_error_of_a_strange_map_is_internal(message: dict[str, object]) -> None:
    assert isinstance(from_wire(message), Internal)


def test_error_tree_in_the_docstring_names_every_error_of_the_module() -> None:
    text = errors.__doc__ or ""
    missing = [
        each.__name__
        for each in tree()
        if each.__module__ == errors.__name__ and not re.search(rf"\b{each.__name__}\b", text)
    ]
    assert not missing


def test_error_of_the_wire_closes_links_only() -> None:
    assert {each.__name__ for each in tree(ProtocolError)} == {
        "ProtocolError",
        "BadFrame",
        "FrameTooLarge",
        "BadHandshake",
        "VersionUnsupported",
        "FlowControlViolated",
        "ChannelViolation",
        "SessionLost",
        "LinkReplaced",
    }
