"""The state directory."""

import stat
from pathlib import Path

import pytest

from sth_agent.config import StateDirectory, default_state_path
from sth_agent.connection_state import ConnectionState
from sth_agent.private_files import read_json, write_private
from sth_protocol.errors import Conflict, Misconfigured


def test_state_directory_is_private(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "deep" / "state")
    state.create()
    for each in (state.path, state.identity, state.instances, state.temporary):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_state_directory_has_one_agent(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    with state.lock(), pytest.raises(Conflict), state.lock():
        raise AssertionError("locked twice")
    with state.lock():
        pass


def test_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured) as refused:
        StateDirectory(tmp_path / "file" / "state").create()
    assert refused.value.exit_code == 78


def test_state_path_prefers_what_is_said() -> None:
    assert default_state_path({"STH_AGENT_STATE": "/x/y"}) == Path("/x/y")


def test_private_file_is_replaced_whole_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old, and longer than what follows")
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_broken_file_of_ours_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"broken\.json"):
        read_json(path)


def test_epoch_rises_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    first = ConnectionState(path)
    assert [first.next_epoch(), first.next_epoch()] == [1, 2]
    first.remember(("a:1", "b:2"))
    again = ConnectionState(path)
    assert again.next_epoch() == 3
    assert again.addresses == ("a:1", "b:2")


def test_addresses_are_kept_when_the_broker_names_none(tmp_path: Path) -> None:
    state = ConnectionState(tmp_path / "connection.json")
    state.remember(("a:1",))
    state.remember(())
    assert state.addresses == ("a:1",)


def test_broken_connection_state_does_not_keep_a_machine_away(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text('{"epoch": "x", "addresses": 3}')
    state = ConnectionState(path)
    assert (state.next_epoch(), state.addresses) == (1, ())
