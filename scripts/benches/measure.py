"""What every figure shares: alternating rounds, medians, and the row that is printed."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `target` in words; `reached` is None where nothing was promised."""

    name: str
    value: str
    against: str
    ratio: str
    target: str
    reached: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


def alternate(rounds: int, *measurements: Callable[[], float]) -> list[float]:
    """The median of each measurement; they take turns, so that noise hits all of them alike."""
    samples: list[list[float]] = [[] for _ in measurements]
    for _ in range(rounds):
        for position, measurement in enumerate(measurements):
            samples[position].append(measurement())
    return [statistics.median(each) for each in samples]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0..1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bare_python() -> str:
    """The real interpreter behind any environment or shim."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def bare_node() -> str:
    """The real node binary, as it names itself; empty without one."""
    try:
        done = subprocess.run(
            ["node", "-p", "process.execPath"], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return os.path.realpath(done.stdout.strip())


def smaps(process_id: int) -> dict[str, int]:
    """Rss and Pss of a process in bytes."""
    found: dict[str, int] = {}
    with open(f"/proc/{process_id}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                found[name] = int(rest.split()[0]) * 1024
    return found


def processor_seconds(process_id: int) -> float:
    """User and system time that a process has used."""
    with open(f"/proc/{process_id}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
