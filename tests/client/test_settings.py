"""Options, environment, profiles, and what is kept of them."""

import base64
import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from sth_client import profiles
from sth_client.last_used import LastUsed
from sth_client.settings import (
    Config,
    Setting,
    check_space,
    config_path,
    is_exposed,
    read_config,
    read_token,
    resolve,
)
from sth_protocol.errors import BadName, BadRequest, Conflict, Forbidden, Misconfigured, NotFound

TEXT = """\
# my brokers
current = "one"

[profile.one]
url = "http://one:1"
space = "s1"
token_file = "one.token"

[profile.two]
url = "http://two:2"
token_file = "/etc/two.token"
extra = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "sth" / "config.toml"
    made.parent.mkdir()
    made.write_text(TEXT)
    return made


def resolved(
    path: Path, options: Mapping[str, str | None] | None = None, **environ: str
) -> tuple[str, str, str, str]:
    found = resolve(options or {}, environ, read_config(path))
    return found.profile.value, found.url.value, found.space.value, found.token_file.value


def test_current_profile_counts_without_anything_else(path: Path) -> None:
    token = str(path.parent / "one.token")
    assert resolved(path) == ("one", "http://one:1", "s1", token)


def test_option_goes_before_environment_before_profile(path: Path) -> None:
    assert resolved(path, STH_PROFILE="two")[1] == "http://two:2"
    assert resolved(path, {"profile": "one"}, STH_PROFILE="two")[1] == "http://one:1"
    assert resolved(path, {"space": "o"}, STH_SPACE="e")[2] == "o"
    assert resolved(path, STH_SPACE="e")[2] == "e"


def test_profile_of_another_broker_gives_neither_token_nor_space(path: Path) -> None:
    assert resolved(path, {"url": "http://other:3"}) == ("one", "http://other:3", "", "")
    assert resolved(path, STH_URL="http://one:1/")[2] == "s1"


def test_token_of_the_environment_goes_before_the_profiles_file(path: Path) -> None:
    found = resolve({}, {"STH_TOKEN": "e.y.j\n"}, read_config(path))
    assert read_token(found) == "e.y.j"
    assert "e.y.j" not in repr(found)
    found = resolve({"token_file": "f"}, {"STH_TOKEN": "e.y.j"}, read_config(path))
    assert (found.token.value, found.token_file.value) == ("", "f")


def test_without_a_file_the_broker_of_this_machine_is_meant(tmp_path: Path) -> None:
    found = resolved(tmp_path / "none.toml")
    assert found == ("", "http://127.0.0.1:8000", "", "")


def test_origin_of_each_value_is_told(path: Path) -> None:
    found = resolve({"output": "json"}, {"STH_SPACE": "e"}, read_config(path))
    assert found.output == Setting("json", "--output")
    assert found.space == Setting("e", "STH_SPACE")
    assert found.url.origin == "profile one"


def test_unknown_profile_names_those_that_are_there(path: Path) -> None:
    with pytest.raises(NotFound, match=r"no profile x \(named by STH_PROFILE\)") as caught:
        resolved(path, STH_PROFILE="x")
    assert "one, two" in caught.value.hint


def test_unknown_form_of_output_is_refused(path: Path) -> None:
    with pytest.raises(BadRequest, match="STH_OUTPUT"):
        resolve({}, {"STH_OUTPUT": "xml"}, read_config(path))


@pytest.mark.parametrize(
    "text", ["current = ", "current = 3", "profile = 3", "[profile]\na = 1", "[profile.a]\nurl = 1"]
)
def test_broken_file_is_named(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"config\.toml"):
        read_config(path)


def test_config_path_follows_xdg() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/sth/config.toml")
    assert config_path({"HOME": "/h"}) == Path("/h/.config/sth/config.toml")


def test_missing_token_file_is_named(path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no token file .*one\.token \(named by profile one\)"):
        read_token(resolve({}, {}, read_config(path)))


def test_exposed_token_file_is_seen(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    assert not is_exposed(token)
    token.chmod(0o640)
    assert is_exposed(token)
    assert not is_exposed(tmp_path / "none")


def token_of(claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


def test_token_of_another_space_is_refused_before_it_is_sent() -> None:
    check_space(token_of({"space": "a"}), Setting("a", "--space"))
    check_space(token_of({"space": "a"}), Setting())
    with pytest.raises(Forbidden, match="the token is of Space a, and --space asks for b"):
        check_space(token_of({"space": "a"}), Setting("b", "--space"))


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "a.!!.c", token_of([]), token_of({})])
def test_token_that_tells_no_space_is_left_to_the_broker(token: str) -> None:
    check_space(token, Setting("b", "--space"))


def test_use_changes_the_current_profile_and_nothing_else(path: Path) -> None:
    profiles.use(read_config(path), "two")
    assert path.read_text() == TEXT.replace('current = "one"', 'current = "two"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_use_adds_the_line_above_the_tables(path: Path) -> None:
    path.write_text(TEXT.replace('current = "one"\n', ""))
    profiles.use(read_config(path), "two")
    assert read_config(path).current == "two"


def test_use_of_an_unknown_profile_changes_nothing(path: Path) -> None:
    with pytest.raises(NotFound):
        profiles.use(read_config(path), "x")
    assert path.read_text() == TEXT


def test_add_keeps_the_token_in_a_private_file_beside(path: Path) -> None:
    url = 'http://three:3/"ö'
    profiles.add(read_config(path), "three", {"url": url}, token="e.y.j")
    config = read_config(path)
    assert config.profiles["three"] == {"url": url, "token_file": "three.token"}
    assert config.current == "one"
    token = path.parent / "three.token"
    assert token.read_text() == "e.y.j\n"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_first_profile_becomes_the_current_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    profiles.add(Config(path), "first", {"url": "http://f:1"}, token="")
    assert read_config(path).current == "first"


def test_add_refuses_a_name_that_is_taken_or_is_none(path: Path) -> None:
    with pytest.raises(Conflict):
        profiles.add(read_config(path), "one", {"url": "http://f:1"}, token="")
    with pytest.raises(BadName):
        profiles.add(read_config(path), "a.b", {"url": "http://f:1"}, token="")


def test_last_used_is_kept_for_each_profile(tmp_path: Path) -> None:
    path = tmp_path / "state" / "last.json"
    LastUsed(path, "one").set("instance", "i1")
    LastUsed(path, "two").set("instance", "i2")
    LastUsed(path, "one").set("topic", "t1")
    assert LastUsed(path, "one").get("instance") == "i1"
    assert LastUsed(path, "two").get("instance") == "i2"
    assert LastUsed(path, "two").get("topic") == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"one": 3}', '{"one": {"instance": 3}}'])
def test_broken_memory_of_what_was_used_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "last.json"
    path.write_text(text)
    last = LastUsed(path, "one")
    assert last.get("instance") == ""
    last.set("instance", "i1")
    assert last.get("instance") == "i1"


def test_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    LastUsed(tmp_path / "file" / "last.json", "one").set("instance", "i1")
