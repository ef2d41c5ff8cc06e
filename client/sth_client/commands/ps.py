"""`sth ps`: what runs, and how lists of Instances look."""

import argparse
import time
from collections.abc import Sequence

from sth_client import values
from sth_client.choose import short_ids
from sth_client.context import Context
from sth_client.output import Column
from sth_client.parsing import Command
from sth_client.results import Instance


def show_instances(context: Context, instances: Sequence[Instance]) -> None:
    """A list, in the form that was asked for."""
    short = short_ids(each.id for each in instances)
    now = time.time()
    columns: list[Column[Instance]] = [
        Column("ID", lambda each: short[each.id]),
        Column("SEQUENCE", lambda each: each.sequence_name or each.sequence_id),
        Column("HUB", lambda each: each.hub_name or each.hub),
        Column("STATUS", lambda each: each.status),
        Column("AGE", lambda each: values.age(each.created, now)),
        Column("ENDED", _end),
    ]
    context.output.items(instances, columns, raw=lambda each: each.raw, name=lambda each: each.id)


def _end(instance: Instance) -> str:
    if instance.exit_code is None:
        return ""
    return f"{instance.exit_code} {instance.reason}".strip()


def _ps(context: Context) -> int:
    instances = context.client.instances(ended=context.options.all)
    if not context.options.all:
        instances = [each for each in instances if not each.has_ended]
    show_instances(context, instances)
    return 0


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="those that ended too")


COMMANDS = {"": Command("show the Instances that run", _ps, _configure)}
