"""Both clients have one interface, and what is written of it is true."""

import inspect
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sth_broker.api.table import ROUTES
from sth_client import aio, sync
from sth_client.parsing import GROUPS, make_parser
from sth_client.sync import Client

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def public(kind: type) -> dict[str, Callable[..., object]]:
    return {
        name: each
        for name, each in vars(kind).items()
        if inspect.isfunction(each) and not name.startswith("_")
    }


def parameters(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    found = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


@pytest.mark.parametrize("name", ["Client", "ByteStream"])
def test_both_clients_have_the_same_methods(name: str) -> None:
    blocking, waiting = public(getattr(sync, name)), public(getattr(aio, name))
    assert list(blocking) == list(waiting)
    for each in waiting.values():
        assert inspect.iscoroutinefunction(each)


@pytest.mark.parametrize("name", public(Client))
def test_both_clients_take_the_same_arguments(name: str) -> None:
    blocking, waiting = getattr(sync.Client, name), getattr(aio.Client, name)
    assert parameters(blocking) == parameters(waiting)


def commands() -> Iterator[tuple[str, ArgumentParser]]:
    for group_name, group in GROUPS.items():
        for name, command in group.commands().items():
            prog = f"sth {group_name} {name}".strip()
            yield prog, make_parser(prog, command)


def test_every_command_has_help_and_is_in_the_reference() -> None:
    text = (REFERENCE / "cli.md").read_text()
    for prog, parser in commands():
        assert parser.format_help()
        assert f"`{prog}" in text, prog


def test_every_option_is_in_the_reference() -> None:
    text = (REFERENCE / "cli.md").read_text()
    known = set(re.findall(r"--[a-z][a-z-]+", text))
    for prog, parser in commands():
        for action in parser._actions:
            long = {each for each in action.option_strings if each.startswith("--")}
            assert long <= known | {"--help"}, prog


def test_every_method_is_in_the_reference() -> None:
    text = (REFERENCE / "api.md").read_text()
    for name in public(Client):
        assert f"`{name}(" in text, name


def test_every_route_is_in_the_reference_with_its_scope() -> None:
    rows = re.findall(
        r"^\| ([A-Z]+) \| (\S+) \| (\S+) \|", (REFERENCE / "api.md").read_text(), re.M
    )
    assert rows == [(each.method, each.path, each.scope or "-") for each in ROUTES]


def test_reference_of_errors_is_that_of_the_code() -> None:
    # A process of its own: other tests may have imported errors that are not part of the tree.
    command = [sys.executable, "-m", "scripts.lib.reference_errors"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == (REFERENCE / "errors.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    lost = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert not lost
