"""What a successor of this process must know of an Instance: one small file each.

It is not synced: it has to survive the agent, not the machine.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sth_agent.output_position import OutputPosition
from sth_agent.private_files import read_json, write_private_json
from sth_protocol.errors import BadFrame, Misconfigured
from sth_protocol.model import InstanceReport, StartSpec, from_map, to_map


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """`output_type`: of the output, "" until the program said; `provides`: with it."""

    spec: StartSpec
    report: InstanceReport
    output_type: str = ""
    provides: dict[str, Any] = field(default_factory=dict)


class InstanceFiles:
    """The files of one Instance in the state directory."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._record = directory / f"{instance}.json"
        self.position = directory / f"{instance}.output"

    def create(self, record: InstanceRecord) -> None:
        """Make both files, with room for all that will be written to the position."""
        self.position.unlink(missing_ok=True)
        position = OutputPosition(self.position)
        position.move(0)
        position.close()
        self.save(record)

    def save(self, record: InstanceRecord) -> None:
        """Replace the record."""
        write_private_json(self._record, to_map(record), durable=False)

    def load(self) -> InstanceRecord | None:
        """The record; None if there is none that can be used."""
        try:
            values = read_json(self._record)
            if values is None:
                return None
            return InstanceRecord(
                spec=from_map(StartSpec, values.get("spec")),
                report=from_map(InstanceReport, values.get("report")),
                output_type=str(values.get("output_type") or ""),
                provides=dict(values.get("provides") or {}),
            )
        except (Misconfigured, BadFrame, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Nobody asks for this Instance any more."""
        self._record.unlink(missing_ok=True)
        self.position.unlink(missing_ok=True)


def stored_instances(directory: Path) -> list[str]:
    """The ids of all Instances of which there is a record."""
    return sorted(each.stem for each in directory.glob("*.json") if not each.name.startswith("."))
