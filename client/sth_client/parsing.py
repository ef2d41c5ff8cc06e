"""From the words on the command line to a command and its options.

Only the parser of the chosen command is made, and only its module is imported: building them all
would take longer than most commands.
"""

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sth_client.choose import did_you_mean
from sth_client.settings import FORMATS
from sth_protocol.errors import BadRequest

if TYPE_CHECKING:
    from sth_client.context import Context

EXIT_CODES = """exit codes:
  0 done, 1 failed, 2 wrong use, 3 not found, 4 not allowed, 5 conflict,
  6 unreachable, 7 out of time, 8 the Instance failed, 78 wrong configuration,
  130 interrupted"""
ENVIRONMENT = """environment:
  STH_URL, STH_TOKEN, STH_TOKEN_FILE, STH_SPACE, STH_PROFILE, STH_CA_FILE,
  STH_OUTPUT, NO_COLOR"""

_WITH_VALUE = ("--profile", "--url", "--token-file", "--ca-file", "--space", "--output", "-o")
_WITHOUT_VALUE = ("--quiet", "--verbose", "-q", "-v", "-vv", "-qv")
_HELP = ("-h", "--help")


@dataclass(frozen=True, slots=True)
class Command:
    """`configure` adds the command's own options to its parser; `run` gives the exit code."""

    summary: str
    run: Callable[["Context"], int]
    configure: Callable[[argparse.ArgumentParser], None] = lambda parser: None


@dataclass(frozen=True, slots=True)
class Group:
    """`module` has COMMANDS: name -> Command; of a command that stands alone, name is ""."""

    module: str
    summary: str

    def commands(self) -> Mapping[str, Command]:
        commands: Mapping[str, Command] = importlib.import_module(self.module).COMMANDS
        return commands


GROUPS: Mapping[str, Group] = {
    "deploy": Group("sth_client.commands.deploy", "pack, upload and start a Sequence"),
    "ps": Group("sth_client.commands.ps", "show the Instances that run"),
    "seq": Group("sth_client.commands.sequences", "Sequences: ls, show, push, start, rm"),
    "inst": Group("sth_client.commands.instances", "Instances: their streams, stop and kill"),
    "topic": Group("sth_client.commands.topics", "Topics: ls, create, rm, pub, sub"),
    "hub": Group("sth_client.commands.hubs", "Hubs: ls, show, revoke"),
    "token": Group("sth_client.commands.tokens", "join and API tokens: create, ls, revoke"),
    "profile": Group("sth_client.commands.profiles", "brokers you use: ls, show, use, add"),
    "version": Group("sth_client.commands.version", "the versions of sth and of its broker"),
}


@dataclass(frozen=True, slots=True)
class Help:
    """Somebody asked for help, or gave no command at all."""

    text: str


@dataclass(frozen=True, slots=True)
class Invocation:
    command: Command
    options: argparse.Namespace


class Parser(argparse.ArgumentParser):
    """argparse, but wrong use is an error of ours, told like any other."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(message, hint=f"`{self.prog} --help` shows how it is used")


def parse(words: Sequence[str]) -> Invocation | Help:
    """The command meant and its options; BadRequest for wrong use."""
    leading, rest = _leading_options(words)
    if not rest or rest[0] in _HELP:
        return Help(_overview())
    name, rest = rest[0], rest[1:]
    group = GROUPS.get(name)
    if group is None:
        raise _unknown(name, GROUPS, "sth")
    commands = group.commands()
    prog = f"sth {name}"
    if "" not in commands:
        more, rest = _leading_options(rest)
        leading += more
        if not rest or rest[0] in _HELP:
            return Help(_group_overview(name, group, commands))
        if rest[0] not in commands:
            raise _unknown(rest[0], commands, prog)
        name, rest = rest[0], rest[1:]
        prog = f"{prog} {name}"
    else:
        name = ""
    command = commands[name]
    if any(word in _HELP for word in rest[: rest.index("--") if "--" in rest else None]):
        return Help(make_parser(prog, command).format_help())
    return Invocation(command, make_parser(prog, command).parse_args([*leading, *rest]))


def make_parser(prog: str, command: Command) -> Parser:
    """The parser of one command, with the options that all have."""
    parser = Parser(
        prog=prog,
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(parser)
    general = parser.add_argument_group("options of every command")
    general.add_argument("--profile", metavar="NAME", help="profile of the configuration")
    general.add_argument("--url", help="the broker's URL")
    general.add_argument("--token-file", metavar="FILE", help="file with the API token")
    general.add_argument("--ca-file", metavar="FILE", help="CA to trust for https")
    general.add_argument("--space", metavar="NAME", help="refuse a token of another Space")
    general.add_argument("-o", "--output", choices=FORMATS, help="form of the data")
    general.add_argument("-q", "--quiet", action="store_true", help="no notes on stderr")
    general.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv most")
    return parser


def _leading_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of every command that stand first, and what follows them."""
    taken: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in _HELP:
        word = rest.pop(0)
        taken.append(word)
        if word in _WITHOUT_VALUE or word.startswith(tuple(f"{each}=" for each in _WITH_VALUE)):
            continue
        if word.startswith("-o") and word != "-o":
            continue
        if word not in _WITH_VALUE:
            raise BadRequest(f"unknown option {word}", hint="`sth --help` shows them")
        if not rest:
            raise BadRequest(f"{word} needs a value", hint="`sth --help` shows the options")
        taken.append(rest.pop(0))
    return taken, rest


def _unknown(word: str, known: Mapping[str, object], prog: str) -> BadRequest:
    near = did_you_mean(word, known)
    hint = f"did you mean `{prog} {near}`?" if near else f"`{prog} --help` shows the commands"
    return BadRequest(f"`{prog} {word}` is not a command", hint=hint)


def _overview() -> str:
    return "\n".join(
        [
            "usage: sth COMMAND [OPTIONS]",
            "",
            "Deploy programs to machines joined to a broker, feed them and read them.",
            "",
            "commands:",
            *_rows({name: group.summary for name, group in GROUPS.items()}),
            "",
            "`sth COMMAND --help` shows more. An Instance, Sequence or Hub is named by its",
            "id, its name or the beginning of either; - is the last one.",
            "",
            ENVIRONMENT,
            "",
            EXIT_CODES,
            "",
        ]
    )


def _group_overview(name: str, group: Group, commands: Mapping[str, Command]) -> str:
    return "\n".join(
        [
            f"usage: sth {name} COMMAND [OPTIONS]",
            "",
            group.summary,
            "",
            "commands:",
            *_rows({each: command.summary for each, command in commands.items()}),
            "",
            f"`sth {name} COMMAND --help` shows more.",
            "",
        ]
    )


def _rows(summaries: Mapping[str, str]) -> list[str]:
    width = max(map(len, summaries))
    return [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
