"""`sth-agent status` for people. The only user of rich, in a process of its own."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sth_agent import clock

_MARKS = {"connected": ("●", "green"), "revoked": ("✗", "red")}


def show(status: Mapping[str, Any]) -> None:
    """Print what the agent has answered on stdout."""
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    connection = status["connection"]
    mark, style = _MARKS.get(connection["state"], ("○", "yellow"))
    head = Text(f"{mark} ", style=style)
    head.append(f"{status['name']}", style="bold")
    head.append(f" in Space {status['space']}: {connection['state']}")
    if connection["address"]:
        head.append(f" to {connection['address']}")
    head.append(f", for {clock.duration(max(0.0, time.time() - connection['since']))}")
    console.print(head, soft_wrap=True)
    if connection["problem"]:
        say(f"  {connection['problem']}", "yellow")
    if connection["hint"]:
        say(f"  {connection['hint']}")
    if connection["state"] != "revoked":
        say(f"  certificate valid to {clock.moment(status['certificate_expires'])} (renews itself)")
    for name, entry in sorted(status["sandbox"].items()):
        if entry.get("state") != "enforced":
            say(f"  ! {name}: {entry.get('state')}; {entry.get('reason', '')}")
            if entry.get("fix"):
                say(f"    {entry['fix']}")
    if status["instances"]:
        _show_instances(status["instances"], console)
    else:
        say("  no Instances")


def _show_instances(instances: list[Mapping[str, Any]], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    # An id is there to be copied: it is never cut.
    table.add_column("INSTANCE", no_wrap=True, min_width=36)
    for title in ("STATE", "PID", "SINCE", "REASON"):
        table.add_column(title)
    for each in instances:
        since = clock.moment((each["ended_ms"] or each["started_ms"]) / 1000)
        table.add_row(
            Text(each["instance"]),
            Text(each["state"]),
            Text(str(each["process_id"] or "")),
            Text(since),
            Text(each["reason"]),
        )
    console.print(table)
