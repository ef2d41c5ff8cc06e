"""Reading the URL of a broker."""

import pytest

from sth_client.endpoint import parse_endpoint
from sth_protocol.errors import BadRequest, Misconfigured


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/api/v1/version"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/api/v1/version"),
        ("http://127.0.0.1:8000/api/v1/", "http://127.0.0.1:8000/api/v1/version"),
        ("https://broker.example/edge", "https://broker.example:443/edge/api/v1/version"),
        ("http://[::1]:9", "http://[::1]:9/api/v1/version"),
        ("http://host", "http://host:80/api/v1/version"),
    ],
)
def test_url_with_or_without_the_api_path_is_read(url: str, whole: str) -> None:
    assert parse_endpoint(url).url("/version") == whole


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://h:99999",
        "http://h?a=1",
        "http://[::1",
    ],
)
def test_url_of_no_broker_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="is not the URL of a broker"):
        parse_endpoint(url)


def test_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_endpoint("http://me:secret@host")
    assert "secret" not in caught.value.message


def test_token_that_would_break_the_header_is_refused() -> None:
    with pytest.raises(BadRequest, match="line break"):
        parse_endpoint("http://host", token="a\r\nX-Evil: 1")


def test_token_stays_out_of_the_representation() -> None:
    assert "s3cret" not in repr(parse_endpoint("http://host", token="s3cret"))


def test_ca_file_that_is_none_is_misconfigured(tmp_path: object) -> None:
    with pytest.raises(Misconfigured, match="cannot be used"):
        parse_endpoint("https://host", ca_file=f"{tmp_path}/none.pem").tls_context()
