import uuid

import pytest

from sth_protocol import ids
from sth_protocol.errors import BadName


@pytest.mark.parametrize("name", ["a", "Readings.2", "a_b+c-d", "x" * 128, "...", "0"])
def test_topic_name_that_is_good_is_returned(name: str) -> None:
    assert ids.check_topic_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "a/b", "a\\b", "ä", "x" * 129, "a\n", "a\0", "a%2e"]
)
def test_topic_name_that_is_bad_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        ids.check_topic_name(name)


@pytest.mark.parametrize("name", ["a", "hub-1", "0", "x" * 63, "a--b"])
def test_hub_and_space_names_are_labels(name: str) -> None:
    assert ids.check_hub_name(name) == ids.check_space_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "x" * 64, "a\n", "ü"])
def test_hub_and_space_names_that_are_no_labels_are_refused(name: str) -> None:
    for check in (ids.check_hub_name, ids.check_space_name):
        with pytest.raises(BadName) as caught:
            check(name)
        assert caught.value.hint


def test_label_from_a_host_name_keeps_what_it_can() -> None:
    assert ids.label_from("Press-7.Example.COM") == "press-7-example-com"
    assert ids.label_from("___") == "hub"


def test_sha256_is_64_lower_case_digits() -> None:
    assert ids.check_sha256("0a" * 32) == "0a" * 32
    for bad in ("", "0a" * 31, "0A" * 32, "0g" * 32, "0a" * 32 + "\n"):
        with pytest.raises(BadName):
            ids.check_sha256(bad)


def test_instance_id_has_36_characters() -> None:
    unique = str(uuid.uuid4())
    assert ids.check_instance_id(unique) == unique
    assert ids.is_uuid(unique)
    own = "my-instance_".ljust(36, "x")
    assert ids.check_instance_id(own) == own
    assert not ids.is_uuid(own)
    for bad in ("", "x" * 35, "x" * 37, "/" * 36, "x" * 36 + "\n"):
        with pytest.raises(BadName):
            ids.check_instance_id(bad)
