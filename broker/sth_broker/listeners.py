"""The two ports, bound before anything is built on them: what the broker tells agents to dial, and
what it writes down for others, is where it really listens."""

import json
import socket
from contextlib import suppress
from pathlib import Path

from sth_broker.config import Address
from sth_broker.private_files import write_private
from sth_protocol.errors import Misconfigured

_PORTS = "ports.json"


def bind(address: Address, *, option: str, again: int = 0) -> socket.socket:
    """A bound socket that does not listen yet. `again`: the port to prefer where any will do, so
    that those who know it find it after a restart. Misconfigured."""
    if address.port == 0 and again:
        with suppress(Misconfigured):
            return bind(Address(address.host, again), option=option)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refusal(address, option, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.host == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise _refusal(address, option, error) from None
    return bound


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def last_ports(data: Path) -> tuple[int, int]:
    """The ports of the API and of the agents that this broker had before; 0 for none."""
    try:
        ports = json.loads((data / _PORTS).read_text())
        return int(ports["api"]), int(ports["agents"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def save_ports(data: Path, *, api: int, agents: int) -> None:
    write_private(data / _PORTS, json.dumps({"api": api, "agents": agents}).encode())


def _refusal(address: Address, option: str, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"cannot listen on {address}: {error.strerror or error}",
        hint=f"choose another with {option} HOST:PORT",
    )
