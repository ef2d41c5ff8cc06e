import base64
import zlib

import pytest

from sth_protocol import codec
from sth_protocol.errors import JoinTokenMalformed
from sth_protocol.jointoken import PREFIX, JoinToken, format_token, parse_token

SECRET = b"0123456789abcdef"
TOKEN = JoinToken(
    addresses=("broker.example:8443", "192.0.2.7:8443"),
    space="default",
    pins=(bytes(32), b"\x01" * 32),
    token_id=b"\x00\x01\x02\x03\x04\x05",
    secret=SECRET,
    expires=1_800_000_000,
)
TEXT = format_token(TOKEN)


def text_of(body: bytes) -> str:
    checked = body + zlib.crc32(body).to_bytes(4, "big")
    return PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def text_with(place: int, value: object) -> str:
    """A token with a right checksum and one wrong field."""
    fields: list[object] = [
        1,
        list(TOKEN.addresses),
        TOKEN.space,
        list(TOKEN.pins),
        TOKEN.token_id,
        TOKEN.secret,
        TOKEN.expires,
    ]
    fields[place] = value
    return text_of(codec.pack(fields))


def test_token_round_trip() -> None:
    assert parse_token(TEXT) == TOKEN


def test_token_is_one_word_for_a_double_click() -> None:
    assert TEXT.startswith("sthj1_")
    assert TEXT.replace("_", "").replace("-", "").isalnum()


def test_token_may_stand_among_white_space() -> None:
    assert parse_token(f" \n{TEXT}\r\n") == TOKEN


def test_token_keeps_its_secret_out_of_its_representation() -> None:
    assert "0123456789abcdef" not in repr(TOKEN)
    assert "secret" not in repr(TOKEN)


def test_token_public_id_is_the_id_in_base64() -> None:
    assert base64.urlsafe_b64decode(TOKEN.public_id) == TOKEN.token_id


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_token_that_is_truncated_is_refused(length: int) -> None:
    with pytest.raises(JoinTokenMalformed) as caught:
        parse_token(TEXT[:length])
    assert caught.value.hint


@pytest.mark.parametrize("place", range(len(PREFIX), len(TEXT) - 1))
def test_token_with_a_wrong_letter_is_refused_without_telling_its_secret(place: int) -> None:
    letter = "A" if TEXT[place] != "A" else "B"
    with pytest.raises(JoinTokenMalformed) as caught:
        parse_token(TEXT[:place] + letter + TEXT[place + 1 :])
    assert TEXT[10:30] not in caught.value.message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "does not start with"),
        ("hello", "does not start with"),
        ("SWMTKN-1-abc", "does not start with"),
        ("eyJhbGciOiJFZERTQSJ9.e30.x", "this is an API token"),
        (PREFIX + "x" * 3000, "too long"),
        (PREFIX, "damaged or truncated"),
        (PREFIX + "ä" * 20, "damaged or truncated"),
        (text_of(b"\xc1"), "not a join token"),
        (text_of(codec.pack("text")), "its fields"),
        (text_of(codec.pack([])), "its fields"),
        (text_of(codec.pack([1])), "its fields"),
        (text_of(codec.pack([2, "anything"])), "version 2"),
        (text_with(1, []), "its fields"),
        (text_with(1, ["a", 7]), "its fields"),
        (text_with(2, 7), "its fields"),
        (text_with(3, []), "its fields"),
        (text_with(3, [b"short"]), "its fields"),
        (text_with(3, [bytes(32), "text"]), "its fields"),
        (text_with(4, b"short"), "its fields"),
        (text_with(5, b"short"), "its fields"),
        (text_with(6, "soon"), "its fields"),
    ],
)
def test_token_that_is_none_is_refused_and_says_why(text: str, part: str) -> None:
    with pytest.raises(JoinTokenMalformed, match=part):
        parse_token(text)
