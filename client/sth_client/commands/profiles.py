"""`sth profile`: the brokers of this user."""

import argparse
import sys

from sth_client import profiles, settings
from sth_client.context import LAST, Context
from sth_client.endpoint import parse_endpoint
from sth_client.output import Column
from sth_client.parsing import Command
from sth_protocol.errors import BadRequest, Misconfigured


def _list(context: Context) -> int:
    config = context.config
    columns: list[Column[str]] = [
        Column("CURRENT", lambda name: "*" if name == config.current else " "),
        Column("NAME", lambda name: name),
        Column("URL", lambda name: config.profiles[name].get("url", "")),
        Column("SPACE", lambda name: config.profiles[name].get("space", "")),
    ]
    context.output.items(
        sorted(config.profiles),
        columns,
        raw=lambda name: (
            {"name": name, "current": name == config.current} | dict(config.profiles[name])
        ),
        name=lambda name: name,
    )
    return 0


def _show(context: Context) -> int:
    found = context.settings
    shown = {
        "profile": found.profile,
        "url": found.url,
        "space": found.space,
        # Never the token itself: this is what people paste when they ask for help.
        "token": settings.Setting("(set)", found.token.origin) if found.token else found.token_file,
        "ca_file": found.ca_file,
        "output": found.output,
    }
    columns: list[Column[str]] = [
        Column("SETTING", lambda name: name),
        Column("VALUE", lambda name: shown[name].value),
        Column("FROM", lambda name: shown[name].origin),
    ]
    context.output.items(
        list(shown),
        columns,
        raw=lambda name: {"setting": name, "value": shown[name].value, "from": shown[name].origin},
        name=lambda name: name,
    )
    return 0


def _use(context: Context) -> int:
    name = context.options.name
    profiles.use(context.config, name)
    context.output.note(f"{name} is the current profile")
    return 0


def _add(context: Context) -> int:
    options = context.options
    if not options.url:
        raise BadRequest("a profile needs --url", hint="for example --url http://127.0.0.1:8000")
    parse_endpoint(options.url)
    named = {"url": options.url, "space": options.space, "ca_file": options.ca_file}
    values = {key: value for key, value in named.items() if value}
    profiles.add(context.config, options.name, values, token=_read_token(options.token_file))
    context.output.note(f"added profile {options.name} to {context.config.path}")
    return 0


def _read_token(name: str | None) -> str:
    if not name:
        return ""
    try:
        if name == LAST:
            return sys.stdin.readline().strip()
        with open(name, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the token file {name} cannot be read: {error}") from error


def _configure_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")


COMMANDS = {
    "ls": Command("list profiles", _list),
    "show": Command("show what counts now, and where it comes from", _show),
    "use": Command("make a profile the current one", _use, _configure_name),
    "add": Command(
        "add a profile of --url; its token is copied from --token-file, - is stdin",
        _add,
        _configure_name,
    ),
}
