"""`sth seq`: the packages that a broker holds."""

import argparse
from pathlib import Path

from sth_client.choose import short_ids
from sth_client.commands import deploy
from sth_client.context import Context
from sth_client.output import Column
from sth_client.parsing import Command
from sth_client.results import Sequence


def _list(context: Context) -> int:
    sequences = context.client.sequences()
    short = short_ids(each.id for each in sequences)
    columns: list[Column[Sequence]] = [
        Column("ID", lambda each: short[each.id]),
        Column("NAME", lambda each: each.name),
        Column("VERSION", lambda each: each.version),
        Column("LANGUAGE", lambda each: each.language),
        Column("INSTANCES", lambda each: str(len(each.instances))),
    ]
    context.output.items(sequences, columns, raw=lambda each: each.raw, name=lambda each: each.id)
    return 0


def _show(context: Context) -> int:
    sequence = context.client.sequence(context.sequence_id(context.options.sequence))
    context.output.item(sequence.raw, name=sequence.id)
    return 0


def _push(context: Context) -> int:
    sequence = context.client.upload(Path(context.options.path), name=context.options.name)
    context.last.set("sequence", sequence)
    if context.output.form in ("json", "jsonl"):
        context.output.item({"id": sequence}, name=sequence)
    else:
        context.output.line(sequence)
    return 0


def _start(context: Context) -> int:
    return deploy.start(context, context.sequence_id(context.options.sequence))


def _remove(context: Context) -> int:
    sequence = context.sequence_id(context.options.sequence)
    context.confirm(f"remove Sequence {sequence}")
    context.client.delete_sequence(sequence)
    context.output.note(f"removed Sequence {sequence}")
    return 0


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sequence", metavar="SEQUENCE", help="id, name or beginning; - the last")


def _configure_start(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    deploy.configure_start(parser)


def _configure_remove(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMANDS = {
    "ls": Command("list Sequences", _list),
    "show": Command("show one Sequence", _show, _configure_one),
    "push": Command("pack and upload, without starting", _push, deploy.configure_package),
    "start": Command("start a Sequence", _start, _configure_start),
    "rm": Command("remove a Sequence", _remove, _configure_remove),
}
