"""The audit: every line on disk, in a chain that shows what was changed."""

import asyncio
import json
from pathlib import Path

import pytest

from sth_broker.audit import AuditLog, verify
from sth_protocol.errors import Corrupt, StorageFailed


async def _written(path: Path, *actions: str) -> None:
    audit = AuditLog(path)
    for action in actions:
        await audit.record(action, space="default", by="test", subject="thing")
    audit.close()


def _actions(path: Path) -> list[str]:
    return [json.loads(each)["action"] for each in path.read_text().splitlines()]


async def test_audit_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    audit = AuditLog(path, clock=lambda: 0.5)
    await audit.record("hub.revoke", space="default", by="t1", subject="h1", name="pi")
    (line,) = path.read_text().splitlines()
    audit.close()
    entry = json.loads(line)
    assert entry.pop("previous") == "0" * 64
    assert entry == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "action": "hub.revoke",
        "space": "default",
        "by": "t1",
        "subject": "h1",
        "name": "pi",
    }


async def test_audit_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    await _written(path, "one", "two")
    await _written(path, "three")
    assert verify(path) == 3


async def test_audit_keeps_the_order_of_many_writers(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    audit = AuditLog(path)
    await asyncio.gather(
        *(audit.record(f"a{n}", space="s", by="b", subject="c") for n in range(50))
    )
    audit.close()
    assert _actions(path) == [f"a{n}" for n in range(50)]
    assert verify(path) == 50


async def test_audit_shows_a_line_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    await _written(path, "one", "two", "three")
    path.write_text(path.read_text().replace('"two"', '"tw0"'))
    with pytest.raises(Corrupt, match="line 3"):
        verify(path)


async def test_audit_shows_a_line_that_was_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    await _written(path, "one", "two", "three")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(Corrupt, match="line 2"):
        verify(path)


@pytest.mark.parametrize("cut", [1, 20, 150])
async def test_audit_with_a_torn_tail_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.ndjson"
    await _written(path, "one", "two")
    path.write_bytes(path.read_bytes()[:-cut])
    await _written(path, "three")
    assert _actions(path) == [
        "one",
        "three",
    ]
    assert verify(path) == 2


async def test_audit_with_long_lines_finds_its_end(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    audit = AuditLog(path)
    await audit.record("long", space="s", by="b", subject="c", text="x" * 200_000)
    audit.close()
    await _written(path, "next")
    assert verify(path) == 2


async def test_audit_that_cannot_be_written_says_so() -> None:
    audit = AuditLog(Path("/dev/full"))
    with pytest.raises(StorageFailed):
        await audit.record("one", space="s", by="b", subject="c")
    audit.close()
