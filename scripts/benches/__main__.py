"""`./scripts/bench`: runs the figures that were named, or all, and prints a table."""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scripts.benches import link, small, through
from scripts.benches.measure import Figure, bare_node, bare_python

BENCHES: dict[str, Callable[[], Iterator[Figure]]] = {
    "link": link.link,
    "echo": through.echo,
    "lines": through.lines,
    "pingpong": through.pingpong,
    "start": small.start,
    "idle": small.idle,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--list", action="store_true", help="name the figures")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(BENCHES))
        return 0
    unknown = set(arguments.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    print(f"bare Python {bare_python()}, bare Node {bare_node() or 'absent'}", file=sys.stderr)
    figures: list[Figure] = []
    for name in arguments.names or BENCHES:
        print(f"{name} …", file=sys.stderr)
        figures.extend(BENCHES[name]())
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(report(figures), indent=2) + "\n")
    return 0


def show(figures: list[Figure]) -> None:
    """The table on standard output."""
    table = Table("figure", "value", "against, same run", "ratio", "target", "")
    for each in figures:
        verdict = {None: "", True: "reached", False: "MISSED"}[each.reached]
        table.add_row(each.name, each.value, each.against, each.ratio, each.target, verdict)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def report(figures: list[Figure]) -> dict[str, object]:
    """What the JSON file holds: the figures, and where and when they were measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "figures": [dataclasses.asdict(each) for each in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
