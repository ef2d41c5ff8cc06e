"""Scenario 11: the broker is killed between the burn of a join token and its reply. The same agent
joins; another cannot."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import ClientError
from tests.support.broker_core import SPACE, Machine, running_core

from sth_broker.hub_record import Hub
from sth_protocol.jointoken import JoinToken

# A broker in a process of its own, whose store stops it dead right after the burn is on the disk.
_BROKER = """
import asyncio, os, signal, sys
from pathlib import Path
from sth_broker.store.records import SqliteRecords
from tests.support.broker_core import running_core

put = SqliteRecords.put

async def put_and_die(self, key, value, *, expected=None):
    revision = await put(self, key, value, expected=expected)
    if key.startswith("jointoken/") and value["used"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return revision

async def main():
    SqliteRecords.put = put_and_die
    async with running_core(Path(sys.argv[1]), port=int(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def _burn_and_crash(data: Path) -> tuple[Machine, JoinToken]:
    """A machine whose token a broker burnt and whose answer it never got, and that token."""
    async with running_core(data) as core:
        token = await core.join_token()
        machine = Machine(core)
        port = core.port
    root = Path(__file__).parents[2]
    broker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _BROKER, str(data), str(port)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert broker.stdout is not None
    assert await broker.stdout.readline() == b"ready\n"
    with pytest.raises(ClientError):
        await machine.enroll(token)
    assert await broker.wait() == -signal.SIGKILL
    return machine, token


@pytest.mark.parametrize("first", ["same", "other"])
async def test_scenario_11_same_agent_joins_and_another_cannot(tmp_path: Path, first: str) -> None:
    machine, token = await _burn_and_crash(tmp_path)
    async with running_core(tmp_path, port=machine.core.port) as core:
        assert core.hubs.list(SPACE) == []
        (record,) = await core.store.records.list("jointoken/")
        assert record.value["used"] == 1, "the token must be burnt for this to show anything"
        other = Machine(core)
        machine.core = core
        order = [machine, other] if first == "same" else [other, machine]
        answers = {id(each): await each.enroll(token) for each in order}
        status, refused = answers[id(other)]
        assert (status, refused["code"]) == (410, "JOIN_TOKEN_SPENT")
        status, joined = answers[id(machine)]
        assert status == 200
        assert joined["certificate"] == record.value["recent"][0]["certificate"]
        hub: Hub = core.hubs.get(SPACE, joined["hub"])
        assert hub.name == joined["name"]
        async with machine.link() as end:
            assert end.welcome.hub == hub.hub_id
        assert '"hub.join.refused"' in core.audit_path.read_text()
