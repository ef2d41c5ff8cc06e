"""Addresses as they are written, and the order in which they are tried."""

import pytest

from sth_agent.addresses import Address, address_list, parse_address
from sth_protocol.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("broker", "broker", 8443),
        ("broker.example.com:443", "broker.example.com", 443),
        (" 10.0.0.1:8443 ", "10.0.0.1", 8443),
        ("[::1]", "::1", 8443),
        ("[fe80::1]:9000", "fe80::1", 9000),
        ("fe80::1", "fe80::1", 8443),
    ],
)
def test_address_is_read(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", ":1", "host:0", "host:65536", "host:x", "[::1", "[::1]9", "a b", "https://h"]
)
def test_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_address(text)


@pytest.mark.parametrize("text", ["host:1", "[::1]:8443"])
def test_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


def test_address_list_keeps_the_order_and_drops_what_comes_twice() -> None:
    found = address_list(["b:1", "a:1"], ["a:1", "not an address", "c"])
    assert [str(each) for each in found] == ["b:1", "a:1", "c:8443"]
