"""Agents, links and brokers that come and go while Instances live on."""

import json
import os
import signal

from tests.support import packages
from tests.support.system import System
from tests.support.waiting import wait_for

from sth_client import Client


def send_and_read(client: Client, instance: str, text: str) -> None:
    client.send_input(instance, text.encode(), end=False)
    received = b""
    with client.output(instance) as output:
        while len(received) < len(text):
            received += next(output)
    assert received.decode() == text


def send_until(client: Client, instance: str, text: str) -> None:
    """Send `text` and read until it comes, whatever comes before it."""
    client.send_input(instance, text.encode(), end=False)
    received = b""
    with client.output(instance) as output:
        while not received.endswith(text.encode()):
            received += next(output)


def process_of(client: Client, instance: str) -> int:
    found = client.health(instance).process_id
    assert found
    return found


def test_instance_survives_the_agents_death(system: System) -> None:
    agent = system.join_agent("edge")
    client = system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    send_and_read(client, instance, "before\n")
    process = process_of(client, instance)
    agent.kill()
    system.wait_for_hub("edge", "offline")
    agent.run()
    system.wait_for_hub("edge")
    assert client.instance(instance).status == "running"
    assert process_of(client, instance) == process
    send_and_read(client, instance, "after\n")


def test_output_written_while_the_agent_is_away_is_kept(system: System) -> None:
    agent = system.join_agent("edge")
    client = system.client()
    source = """
import asyncio

async def run(context, input):
    async for line in input:
        for n in range(1000):
            yield f"{n}\\n"
"""
    instance = client.start(client.upload(packages.python(source)))
    client.send_input(instance, b"go\n", end=False)
    agent.kill()
    system.wait_for_hub("edge", "offline")
    agent.run()
    system.wait_for_hub("edge")
    received = b""
    with client.output(instance) as output:
        while received.count(b"\n") < 1000:
            received += next(output)
    assert received == b"".join(b"%d\n" % n for n in range(1000))


def test_instance_that_ends_while_the_agent_is_away_is_reported(system: System) -> None:
    agent = system.join_agent("edge")
    client = system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    process = process_of(client, instance)
    agent.kill()
    system.wait_for_hub("edge", "offline")
    os.kill(process, signal.SIGKILL)
    agent.run()
    wait_for("the end is known", lambda: client.instance(instance).status == "errored")
    assert client.instance(instance).exit_code == 137


def test_instance_survives_the_brokers_restart(system: System) -> None:
    system.join_agent("edge")
    client = system.client()
    instance = client.start(client.upload(packages.python(packages.LINES)))
    send_and_read(client, instance, "before\n")
    assert system.broker is not None
    system.broker.popen.kill()
    system.broker.end()
    system.start_broker()
    system.wait_for_hub("edge")
    client = system.client()
    assert client.instance(instance).status == "running"
    # What the dead broker had not yet reported as read is given again; nothing is lost.
    send_until(client, instance, "after\n")


def test_revoked_hub_is_cut_off_and_stays_so(system: System) -> None:
    agent = system.join_agent("edge")
    client = system.client()
    hub = system.wait_for_hub("edge")
    client.revoke_hub(hub)

    def state() -> str:
        told = json.loads(agent.call("status", "--json").stdout)
        return str(told.get("connection", {}).get("state"))

    wait_for("the link is cut and the agent names the reason", lambda: state() == "revoked")
    assert not client.hubs()
    agent.kill()
    agent.run()
    wait_for("it is refused again", lambda: state() == "revoked")
