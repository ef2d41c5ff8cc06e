"""`sth deploy`: from a directory to a running Instance in one step."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import IO

from sth_client import pack, values
from sth_client.choose import SHORTEST
from sth_client.commands import streams
from sth_client.context import Context
from sth_client.output import printable
from sth_client.parsing import Command
from sth_client.shown import frame_lines
from sth_protocol.errors import BadRequest, InstanceFailed

_END_LOOKS = 20
_END_LOOK_SECONDS = 0.1


def configure_start(parser: argparse.ArgumentParser) -> None:
    """The options of everything that starts an Instance."""
    parser.add_argument("--hub", metavar="HUB", default="", help="where to run; any if left out")
    parser.add_argument("--args", metavar="JSON", default="[]", help="arguments: a JSON array")
    parser.add_argument("--config", metavar="FILE", help="configuration: a .json or .toml file")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one value of it"
    )
    parser.add_argument("--input-topic", metavar="TOPIC", default="", help="feed it from a Topic")
    parser.add_argument("--output-topic", metavar="TOPIC", default="", help="send to a Topic")
    parser.add_argument("--follow", action="store_true", help="show its output until it ends")


def configure_package(parser: argparse.ArgumentParser) -> None:
    """The options of everything that uploads a package."""
    parser.add_argument("path", metavar="PATH", help="directory with a package.json, or a .tar.gz")
    parser.add_argument("--name", default="", help="the Sequence's name, instead of the package's")


def start(context: Context, sequence: str, *, shown: dict[str, object] | None = None) -> int:
    """Start a Sequence as the options say; its Instance's id is the data. `shown`: what JSON
    output tells besides."""
    options = context.options
    config = _read_config(options.config) if options.config else {}
    instance = context.client.start(
        sequence,
        args=values.parse_arguments(options.args),
        config=values.apply_settings(config, options.set),
        hub=context.hub_id(options.hub) if options.hub else "",
        input_topic=options.input_topic,
        output_topic=options.output_topic,
    )
    context.last.set("instance", instance)
    if not options.follow:
        if context.output.form in ("json", "jsonl"):
            context.output.item({**(shown or {}), "instance": instance}, name=instance)
        else:
            context.output.line(instance)
        return 0
    context.output.note(f"started Instance {instance}; its output follows")
    context.interrupted = streams.keeps_running(instance)
    count = streams.copy_out(context, context.client.output(instance))
    return _outcome(context, instance, is_silent=not count)


def _outcome(context: Context, instance: str, *, is_silent: bool) -> int:
    """0, or InstanceFailed if it ended with an error. Its output may end before it does."""
    short = instance[:SHORTEST]
    found = context.client.instance(instance)
    for _ in range(_END_LOOKS):
        if found.has_ended:
            break
        time.sleep(_END_LOOK_SECONDS)
        found = context.client.instance(instance)
    if found.status == "errored":
        for line in frame_lines(found.raw):
            context.output.note(f"  {printable(line)}")
        raise InstanceFailed(
            f"Instance {short} ended: {found.exit_code} {found.reason}",
            hint=f"`sth inst stderr {short}` tells more",
        )
    if not found.has_ended:
        context.output.note(f"its output ended; Instance {short} is {found.status}")
    elif is_silent:
        # Whoever prints rather than yields sees nothing otherwise, and no reason why.
        context.output.note(
            f"it had no output; what it printed is shown by `sth inst stdout {short}`"
        )
    return 0


def _deploy(context: Context) -> int:
    path = Path(context.options.path)
    # Before anything is sent: a mistake in these needs no broker to be found.
    values.parse_arguments(context.options.args)
    with tempfile.TemporaryFile() as archive:
        if path.is_dir():
            packed = pack.pack(path, archive)
            size = archive.tell()
            archive.seek(0)
            title = f"{packed.name or path.resolve().name} {packed.version}".strip()
            context.output.note(f"packed {title}: {packed.files} files, {_size(size)}")
        sequence = _upload(context, archive if path.is_dir() else path)
    context.last.set("sequence", sequence)
    context.output.note(f"uploaded Sequence {sequence}")
    return start(context, sequence, shown={"sequence": sequence})


def _upload(context: Context, package: IO[bytes] | Path) -> str:
    return context.client.upload(package, name=context.options.name)


def _read_config(name: str) -> dict[str, object]:
    path = Path(name)
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        import json

        value = json.loads(text)
    except OSError as error:
        raise BadRequest(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise BadRequest(f"{name} is not {kind}: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{name} is not a JSON object")
    return value


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"


def _configure(parser: argparse.ArgumentParser) -> None:
    configure_package(parser)
    configure_start(parser)


COMMANDS = {"": Command("pack, upload and start a Sequence", _deploy, _configure)}
