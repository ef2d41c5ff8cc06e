"""`sth inst`: one Instance, its streams and its end."""

import argparse
from typing import TYPE_CHECKING

from sth_client import shown, values
from sth_client.commands import streams
from sth_client.commands.ps import show_instances
from sth_client.context import LAST, Context
from sth_client.output import printable
from sth_client.parsing import Command

if TYPE_CHECKING:
    from sth_client.sync import ByteStream

DEFAULT_CONTENT_TYPE = "text/plain"
# Without -f, what is there counts as read after this many seconds without more of it.
LOG_IDLE_SECONDS = 1.0


def _list(context: Context) -> int:
    show_instances(context, context.client.instances(ended=context.options.all))
    return 0


def _show(context: Context) -> int:
    instance = context.client.instance(_chosen(context))
    context.output.item(instance.raw, name=instance.id, rows=shown.instance_rows(instance.raw))
    return 0


def _in(context: Context) -> int:
    options = context.options
    with streams.open_input(options.file) as source:
        context.client.send_input(
            _followed(context), source, content_type=options.content_type, end=not options.keep_open
        )
    return 0


def _stdin(context: Context) -> int:
    options = context.options
    with streams.open_input(options.file) as source:
        context.client.send_stdin(_followed(context), source, end=not options.keep_open)
    return 0


def _out(context: Context) -> int:
    instance = _followed(context)
    streams.copy_out(context, context.client.output(instance))
    return 0


def _stdout(context: Context) -> int:
    instance = _followed(context)
    streams.copy_out(context, context.client.stdout(instance))
    return 0


def _stderr(context: Context) -> int:
    instance = _followed(context)
    streams.copy_out(context, context.client.stderr(instance))
    return 0


def _logs(context: Context) -> int:
    instance = _followed(context)
    idle = None if context.options.follow else LOG_IDLE_SECONDS
    stream = context.client.log(instance, idle=idle)
    if context.output.form in ("json", "jsonl"):
        streams.copy_out(context, stream)
    else:
        _show_log(context, stream)
    return 0


def _show_log(context: Context, stream: "ByteStream") -> None:
    rest = b""
    with stream:
        for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _show_log_line(context, line)
    if rest:
        _show_log_line(context, rest)


def _show_log_line(context: Context, line: bytes) -> None:
    for part in values.log_line(line).expandtabs().split("\n"):
        context.output.line(printable(part))


def _health(context: Context) -> int:
    health = context.client.health(_chosen(context))
    context.output.item(health.raw, name="healthy" if health.healthy else "unhealthy")
    return 0 if health.healthy else 1


def _stop(context: Context) -> int:
    chosen = _chosen(context)
    instance = context.client.stop(chosen, timeout=values.parse_duration(context.options.grace))
    context.output.note(f"Instance {instance.id or chosen} is {instance.status}")
    return 0


def _kill(context: Context) -> int:
    chosen = _chosen(context)
    instance = context.client.kill(chosen, remove_immediately=context.options.forget)
    context.output.note(f"Instance {instance.id or chosen} is {instance.status}")
    return 0


def _chosen(context: Context) -> str:
    return context.instance_id(context.options.instance)


def _followed(context: Context) -> str:
    instance = _chosen(context)
    context.interrupted = streams.keeps_running(instance)
    return instance


def _configure_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all that are on record")


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "instance", metavar="INSTANCE", help="id, its beginning, or its Sequence's name; - the last"
    )


def _configure_stdin(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", default=LAST, help="stdin if left out")
    parser.add_argument("--keep-open", action="store_true", help="more will come: do not end it")


def _configure_in(parser: argparse.ArgumentParser) -> None:
    _configure_stdin(parser)
    parser.add_argument(
        *("-t", "--content-type"),
        default=DEFAULT_CONTENT_TYPE,
        help=f"{DEFAULT_CONTENT_TYPE} (default), application/x-ndjson, application/octet-stream",
    )


def _configure_logs(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")


def _configure_stop(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--grace", metavar="TIME", default="7s", help="then it is killed (7s)")


def _configure_kill(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--forget", action="store_true", help="its streams too")


COMMANDS = {
    "ls": Command("list Instances, those that ended lately too", _list, _configure_list),
    "show": Command("show one Instance", _show, _configure_one),
    "in": Command("feed its input from a file or stdin", _in, _configure_in),
    "out": Command("read its output", _out, _configure_one),
    "stdin": Command("feed its stdin from a file or stdin", _stdin, _configure_stdin),
    "stdout": Command("read its stdout", _stdout, _configure_one),
    "stderr": Command("read its stderr", _stderr, _configure_one),
    "logs": Command("read its log", _logs, _configure_logs),
    "health": Command("ask whether it is well", _health, _configure_one),
    "stop": Command("ask it to end", _stop, _configure_stop),
    "kill": Command("end it at once", _kill, _configure_kill),
}
