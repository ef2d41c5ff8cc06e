"""`sth topic`: named, durable streams."""

import argparse

from sth_client import values
from sth_client.commands import streams
from sth_client.context import LAST, Context
from sth_client.output import Column, printable
from sth_client.parsing import Command
from sth_client.results import Topic

DEFAULT_CONTENT_TYPE = "application/x-ndjson"


def _list(context: Context) -> int:
    columns: list[Column[Topic]] = [
        Column("NAME", lambda each: each.name),
        Column("CONTENT TYPE", lambda each: each.content_type),
    ]
    topics = context.client.topics()
    context.output.items(topics, columns, raw=lambda each: each.raw, name=lambda each: each.name)
    return 0


def _create(context: Context) -> int:
    name = context.topic(context.options.topic)
    context.client.create_topic(name, content_type=context.options.content_type)
    context.output.note(f"created Topic {name}")
    return 0


def _remove(context: Context) -> int:
    name = context.topic(context.options.topic)
    context.confirm(f"remove Topic {name} and all its records")
    context.client.delete_topic(name)
    context.output.note(f"removed Topic {name}")
    return 0


def _publish(context: Context) -> int:
    name = context.topic(context.options.topic)
    content_type = context.options.content_type or _content_type_of(context, name)
    with streams.open_input(context.options.file) as source:
        context.client.publish(name, source, content_type=content_type)
    return 0


def _content_type_of(context: Context, name: str) -> str:
    """That of the Topic if it exists; its type was fixed by who made it."""
    known = {each.name: each.content_type for each in context.client.topics()}
    return known.get(name) or DEFAULT_CONTENT_TYPE


def _subscribe(context: Context) -> int:
    options = context.options
    idle = values.parse_duration(options.idle) if options.idle else None
    name = context.topic(options.topic)
    if all(each.name != name for each in context.client.topics()):
        # It may be a slip of the fingers: then nothing ever comes.
        context.output.note(f"there is no Topic {printable(name)} yet; waiting for its records")
    stream = context.client.subscribe(name, content_type=options.content_type, idle=idle)
    streams.copy_out(context, stream)
    return 0


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="its name; - the last")


def _configure_create(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    _add_content_type(parser, default=DEFAULT_CONTENT_TYPE, otherwise=DEFAULT_CONTENT_TYPE)


def _configure_remove(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _configure_publish(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", default=LAST, help="stdin if left out")
    _add_content_type(parser, default="", otherwise=f"the Topic's, else {DEFAULT_CONTENT_TYPE}")


def _configure_subscribe(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    _add_content_type(parser, default="", otherwise="the Topic's")
    parser.add_argument("--idle", metavar="TIME", help="end after so long without a byte")


def _add_content_type(parser: argparse.ArgumentParser, *, default: str, otherwise: str) -> None:
    parser.add_argument("-t", "--content-type", default=default, help=f"if left out: {otherwise}")


COMMANDS = {
    "ls": Command("list Topics", _list),
    "create": Command("create a Topic", _create, _configure_create),
    "rm": Command("remove a Topic and its records", _remove, _configure_remove),
    "pub": Command("add records from a file or stdin", _publish, _configure_publish),
    "sub": Command("read records as they come", _subscribe, _configure_subscribe),
}
