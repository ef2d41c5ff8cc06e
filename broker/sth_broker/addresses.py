"""Where agents find this broker: what was told, or this machine's own name and addresses."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

from sth_broker.config import Address, Config, parse_address

# Reserved for documentation. Nothing is sent: the kernel only says which address it would use.
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def advertised(config: Config, *, port: int) -> tuple[str, ...]:
    """HOST:PORT of the agents' port, best first. `port`: where it really listens."""
    if config.advertise:
        return tuple(str(parse_address(each, default_port=port)) for each in config.advertise)
    host = config.agents.host
    if host not in ("0.0.0.0", "::"):
        return (str(Address(host, port)),)
    own_name = socket.gethostname()
    found = [own_name] if own_name != "localhost" else []
    found += outbound_addresses()
    return tuple(str(Address(each, port)) for each in dict.fromkeys(found)) or (
        str(Address("127.0.0.1", port)),
    )


def outbound_addresses() -> list[str]:
    """The addresses of this machine from which it would reach others."""
    found = []
    for family, probe in _PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((probe, 9))
                address: str = sock.getsockname()[0]
        except OSError:
            continue
        if not ip_address(address).is_loopback:
            found.append(address)
    return found


def only_loopback(addresses: Sequence[str]) -> bool:
    """Whether no other machine could dial any of them."""
    return all(parse_address(each, default_port=0).is_loopback for each in addresses)
