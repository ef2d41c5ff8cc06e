"""From an answer to a value or an error."""

import json

import pytest

from sth_client.answers import error_of, read_json
from sth_client.fields import Fields
from sth_protocol import errors


def error(status: int, body: object) -> errors.SthError:
    return error_of(status, "Reason", json.dumps(body).encode(), what="GET /x")


def test_empty_answer_is_nothing() -> None:
    assert read_json(204, "No Content", b"", what="GET /x", base="http://h") is None


def test_error_with_a_known_code_is_of_its_class() -> None:
    body = {"error": "m", "code": "HUB_OFFLINE", "message": "Hub x is offline", "hint": "start it"}
    found = error(503, body)
    assert type(found) is errors.HubOffline
    assert (found.message, found.hint, found.exit_code) == ("Hub x is offline", "start it", 6)


def test_every_code_of_the_tree_comes_back_as_its_class() -> None:
    for kind in errors.tree():
        if kind is not errors.SthError:
            assert type(error(kind.http_status, {"code": kind.code, "message": "m"})) is kind


def test_unknown_code_goes_by_the_status_and_is_named() -> None:
    found = error(409, {"code": "NEWER_THAN_US", "message": "no"})
    assert type(found) is errors.Conflict
    assert found.message == "no (NEWER_THAN_US)"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.BadRequest), (404, errors.NotFound), (419, errors.InsufficientResources)],
)
def test_original_error_without_a_code_goes_by_the_status(
    status: int, kind: type[errors.SthError]
) -> None:
    found = error(status, {"error": "Instance X not found"})
    assert type(found) is kind
    assert found.message == "Instance X not found"


def test_original_error_in_an_object_is_read() -> None:
    body = {"error": {"code": "PRERUNNER_ERROR", "data": "Invalid pkg tar.gz archive"}}
    found = error(422, body)
    assert type(found) is errors.BadPackage
    assert found.message == "Invalid pkg tar.gz archive"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"text"', b"\xff"])
def test_error_without_a_body_of_ours_names_the_request(body: bytes) -> None:
    found = error_of(500, "Oops", body, what="GET /x")
    assert type(found) is errors.Internal
    assert found.message == "GET /x: HTTP 500 Oops"


def test_unlisted_status_is_the_callers_or_the_brokers_fault() -> None:
    assert type(error(418, {})) is errors.BadRequest
    assert type(error(599, {})) is errors.Internal


def test_fields_take_what_is_absent_as_empty() -> None:
    fields = Fields("thing", {"null": None, "number": 3})
    assert fields.text("none", "null", "number") == "3"
    assert (fields.number("none"), fields.integer("none"), fields.flag("none")) == (
        0.0,
        None,
        False,
    )
    assert (fields.mapping("none"), fields.array("none")) == ({}, ())


@pytest.mark.parametrize("method", ["text", "number", "integer", "flag", "mapping", "array"])
def test_fields_refuse_another_type(method: str) -> None:
    wrong: object = "x" if method != "text" else ["x"]
    with pytest.raises(errors.Unreachable, match="not a thing: key is"):
        getattr(Fields("thing", {"key": wrong}), method)("key")


def test_fields_refuse_what_is_no_object() -> None:
    with pytest.raises(errors.Unreachable, match="an object is needed, not list"):
        Fields("thing", [])
