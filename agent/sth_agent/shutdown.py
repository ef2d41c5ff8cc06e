"""`sth-agent stop` and `leave`, seen from the process that runs the command."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sth_agent import control_socket
from sth_agent.config import StateDirectory
from sth_agent.control_socket import NotRunning
from sth_agent.credentials import IdentityStore
from sth_agent.spawner_client import VERSION
from sth_protocol.errors import SthError, TimedOut, from_wire
from sth_sandbox import packets

# What everything around the grace itself may take.
MARGIN_SECONDS = 30.0


def stop(state: StateDirectory, *, grace: float) -> bool:
    """End the agent, its Instances and the spawner; whether anything was running."""
    try:
        status = control_socket.ask(state.path, "status")
    except NotRunning:
        return _stop_spawner(state, grace)
    agent, spawner = _end_of(int(status["agent"])), _end_of(int(status["spawner"]))
    with agent as wait_for_agent, spawner as wait_for_spawner:
        timeout = 2 * grace + MARGIN_SECONDS
        control_socket.ask(state.path, "stop", timeout=timeout, grace_ms=int(grace * 1000))
        wait_for_agent()
        wait_for_spawner()
    return True


def leave(state: StateDirectory, *, grace: float) -> None:
    """Stop everything, then remove who this machine was."""
    stop(state, grace=grace)
    IdentityStore(state.identity).forget()
    state.connection.unlink(missing_ok=True)


def _stop_spawner(state: StateDirectory, grace: float) -> bool:
    try:
        connection = packets.connect(state.path)
    except OSError:
        return False
    with connection:
        connection.settimeout(grace + MARGIN_SECONDS)
        try:
            with _end_of(int(_ask(connection, "hello", version=VERSION)["pid"])) as wait:
                _ask(connection, "shutdown", grace_ms=int(grace * 1000))
                wait()
        except (EOFError, BrokenPipeError):
            return True
        except TimeoutError:
            raise TimedOut("the spawner does not end") from None
        except OSError as error:
            raise SthError(f"the spawner cannot be asked to end: {error}") from None
    return True


@contextmanager
def _end_of(process: int) -> Iterator[Callable[[], None]]:
    """Inside, a function that returns when this process, and no later one of its number, is gone:
    both answer a moment before they end."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        yield lambda: None
        return
    try:
        yield lambda: _wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _wait_readable(descriptor: int) -> None:
    if not select.select([descriptor], [], [], MARGIN_SECONDS)[0]:
        raise TimedOut("a process has answered, and does not end")


def _ask(connection: socket.socket, operation: str, **fields: object) -> dict[str, Any]:
    packets.send_packet(connection, {"op": operation, "id": operation, **fields})
    while True:
        answer, descriptors = packets.receive_packet(connection)
        packets.close_all(descriptors)
        if answer.get("id") == operation:
            break
    if isinstance(answer.get("error"), dict):
        raise from_wire(answer["error"])
    return answer
