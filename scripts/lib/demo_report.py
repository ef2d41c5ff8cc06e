"""What the demonstration tells: a line a step, a table at the end, and whether all of it held."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Check:
    """One flow: what ran where, how much in which time, and whether it came out right."""

    what: str
    where: str
    proof: str
    size: int
    records: int
    seconds: float
    held: bool


class Report:
    """Collects the checks. `sound`: at least one was made and all held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._checks: list[Check] = []
        self._failures: list[str] = []

    @property
    def sound(self) -> bool:
        return bool(self._checks) and not self._failures

    def say(self, text: str) -> None:
        self._console.print(f"• {text}", highlight=False, soft_wrap=True)

    def require(self, text: str, held: bool) -> None:
        """A statement that must hold."""
        self._console.print(f"{'✓' if held else '✗'} {text}", highlight=False, soft_wrap=True)
        if not held:
            self._failures.append(text)

    def add(self, check: Check) -> None:
        self._checks.append(check)
        self.require(f"{check.what} on {check.where}: {check.proof}", check.held)

    def show(self, seconds: float) -> None:
        """The table, and the verdict."""
        table = Table("Sequence", "Hub", box=None, pad_edge=False)
        for heading in ("MB", "MB/s", "records/s"):
            table.add_column(heading, justify="right")
        table.add_column()
        for each in self._checks:
            rate = f"{each.records / each.seconds:,.0f}" if each.records else ""
            megabytes = each.size / 1e6
            table.add_row(
                each.what,
                each.where,
                f"{megabytes:.1f}",
                f"{megabytes / each.seconds:,.1f}",
                rate,
                "ok" if each.held else "WRONG",
            )
        self._console.print(table)
        verdict = (
            "every check held" if self.sound else f"{len(self._failures) or 'no'} checks failed"
        )
        self._console.print(f"{verdict}, {seconds:.1f} s", highlight=False, soft_wrap=True)

    def show_logs(self, directory: Path) -> None:
        """The ends of all logs, for whoever must find out."""
        for log in sorted(directory.rglob("*.log")):
            self._console.rule(str(log.relative_to(directory)))
            self._console.out(log.read_text(errors="replace")[-LOG_TAIL:])
