"""Addresses, the data directory, and the command line's profile."""

import tomllib
from pathlib import Path

import pytest

from sth_broker.addresses import advertised, only_loopback
from sth_broker.config import Address, Config, default_data, parse_address
from sth_broker.profile import with_profile, write_profile
from sth_protocol.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("broker.example.com", Address("broker.example.com", 5)),
        (":0", Address("0.0.0.0", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("[::]", Address("::", 5)),
    ],
)
def test_parse_address_reads_hosts_and_ports(text: str, expected: Address) -> None:
    assert parse_address(text, default_port=5) == expected


@pytest.mark.parametrize(
    "text", ["a:b", "::1", "h:99999", "a b", "[::1", "h:-1", "http://h:1", "-"]
)
def test_parse_address_refuses_anything_else(text: str) -> None:
    with pytest.raises(Misconfigured):
        parse_address(text, default_port=5)


def test_address_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:80", "[::1]:443"):
        assert str(parse_address(text, default_port=1)) == text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_addresses_are_known_as_such(host: str) -> None:
    assert Address(host, 1).is_loopback
    assert not Address(f"x{host}", 1).is_loopback
    assert not Address("10.0.0.1", 1).is_loopback
    assert not Address("localhost.example.com", 1).is_loopback


def test_advertised_uses_what_was_told_with_the_real_port() -> None:
    config = Config(Path("/nowhere"), advertise=("10.0.0.1", "example.com:444"))
    assert advertised(config, port=8443) == ("10.0.0.1:8443", "example.com:444")


def test_advertised_of_a_broker_on_one_address_is_that_address() -> None:
    config = Config(Path("/nowhere"), agents=Address("127.0.0.1", 0))
    assert advertised(config, port=7) == ("127.0.0.1:7",)
    assert only_loopback(advertised(config, port=7))


def test_advertised_of_a_broker_on_all_addresses_is_never_empty() -> None:
    found = advertised(Config(Path("/nowhere")), port=7)
    assert found
    assert all(each.endswith(":7") for each in found)


def test_default_data_is_the_systems_for_root_and_the_users_for_others() -> None:
    environment = {"XDG_STATE_HOME": "/home/u/state"}
    assert default_data(environment, root=False) == Path("/home/u/state/sth-broker")
    assert default_data(environment, root=True) == Path("/var/lib/sth-broker")
    assert default_data({}, root=False) == Path.home() / ".local/state/sth-broker"


PROFILE = {"url": "http://127.0.0.1:1", "space": "default", "token_file": "/d/admin.token"}


@pytest.mark.parametrize(
    "before",
    [
        "",
        'current = "other"\n\n[profile.other]\nurl = "http://x"\n# kept\n',
        '[profile.local]\nurl = "old"\nca_file = "x"\n\n[profile.other]\nurl = "http://x"\n',
        '[profile.other]\nurl = "http://x"\n[profile.local]\nurl = "old"\n',
        "# only a comment\n",
    ],
)
def test_with_profile_replaces_its_own_and_keeps_the_rest(before: str) -> None:
    after = with_profile(before, **PROFILE)
    old, new = tomllib.loads(before), tomllib.loads(after)
    assert new["profile"]["local"] == PROFILE
    assert new["current"] == old.get("current", "local")
    assert new["profile"].get("other") == old.get("profile", {}).get("other")
    assert ("# kept" in after) == ("# kept" in before)
    assert with_profile(after, **PROFILE) == after


def test_write_profile_tells_of_the_broker_that_had_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert write_profile(path, url="u", space="s", token_file=Path("/one")) == ""
    assert write_profile(path, url="v", space="s", token_file=Path("/one")) == ""
    assert write_profile(path, url="w", space="s", token_file=Path("/two")) == "/one"


def test_write_profile_leaves_a_broken_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "sth" / "config.toml"
    write_profile(path, url="u", space="s", token_file=Path("/t"))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("not = [toml")
    with pytest.raises(ValueError, match=r"."):
        write_profile(path, url="u", space="s", token_file=Path("/t"))
    assert path.read_text() == "not = [toml"
