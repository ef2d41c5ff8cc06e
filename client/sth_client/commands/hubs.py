"""`sth hub`: the machines that joined."""

import argparse
import time

from sth_client import shown, values
from sth_client.choose import short_ids
from sth_client.context import Context
from sth_client.output import Column
from sth_client.parsing import Command
from sth_client.results import Hub


def _list(context: Context) -> int:
    hubs = context.client.hubs()
    short = short_ids(each.id for each in hubs)
    now = time.time()
    columns: list[Column[Hub]] = [
        Column("ID", lambda each: short[each.id]),
        Column("NAME", lambda each: each.name),
        Column("STATUS", lambda each: each.status),
        Column("ARCH", lambda each: each.arch),
        Column("INSTANCES", lambda each: str(each.instances)),
        Column("LAST SEEN", lambda each: _last_seen(each, now)),
    ]
    context.output.items(hubs, columns, raw=lambda each: each.raw, name=lambda each: each.id)
    return 0


def _last_seen(hub: Hub, now: float) -> str:
    # Of a Hub that is linked the broker keeps when its link began.
    return "now" if hub.status == "online" else values.age(hub.last_seen, now)


def _show(context: Context) -> int:
    hub = context.client.hub(context.hub_id(context.options.hub))
    context.output.item(hub.raw, name=hub.id, rows=shown.hub_rows(hub.raw))
    return 0


def _revoke(context: Context) -> int:
    hub = context.client.hub(context.hub_id(context.options.hub))
    context.confirm(f"revoke Hub {hub.name} ({hub.id}) and cut it off")
    context.client.revoke_hub(hub.id)
    context.output.note(f"revoked Hub {hub.name}; its machine can join again with a new token")
    return 0


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hub", metavar="HUB", help="id, name or beginning; - the last")


def _configure_revoke(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMANDS = {
    "ls": Command("list Hubs", _list),
    "show": Command("show one Hub", _show, _configure_one),
    "revoke": Command("take a Hub's identity back", _revoke, _configure_revoke),
}
