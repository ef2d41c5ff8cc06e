"""What the broker can be told, and what it decides for itself when it is told nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from sth_protocol.errors import Misconfigured

DEFAULT_API_PORT = 8000
DEFAULT_AGENTS_PORT = 8443

MIB = 1024 * 1024
_HOST_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,252}[a-zA-Z0-9])?\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, or where others find us. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one broker. Sizes in bytes, times in seconds."""

    data: Path
    # The API and the page: loopback, because there is no TLS on it.
    listen: Address = Address("127.0.0.1", DEFAULT_API_PORT)
    # The port that agents dial: TLS with client certificates.
    agents: Address = Address("0.0.0.0", DEFAULT_AGENTS_PORT)
    # What join tokens name; empty: the host's own name and outbound addresses.
    advertise: tuple[str, ...] = ()
    # Whether the broker runs a Hub of its own beside itself.
    local_hub: bool = True
    # Whether that Hub and its Instances end with the broker.
    stop_all: bool = False
    max_package_bytes: int = 1024 * MIB
    max_json_bytes: int = MIB
    # A JSON body that takes longer is given up.
    json_timeout: float = 30.0
    # Fetching a package over a thin link is part of a start.
    start_timeout: float = 600.0
    # How long streams of an ended Instance stay at its Hub.
    stream_retention: float = 600.0
    # A reader that takes nothing for so long while another moves is closed.
    reader_stall: float = 30.0
    # Records of ended Instances kept in each Space.
    max_ended_instances: int = 1000


def default_data(environment: Mapping[str, str], *, root: bool) -> Path:
    """Root keeps its state with the system's, everybody else in the XDG state directory."""
    if root:
        return Path("/var/lib/sth-broker")
    state = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "sth-broker"


def parse_address(text: str, *, default_port: int) -> Address:
    """`HOST`, `HOST:PORT`, `:PORT`, `[IPV6]:PORT`. Misconfigured for anything else."""
    matched = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?", text) or re.fullmatch(
        r"([^:\[\]]*)(?::(\d{1,5}))?", text
    )
    if matched is None:
        raise Misconfigured(f"'{text}' is not an address", hint="write HOST:PORT or [IPV6]:PORT")
    host = matched.group(1) or "0.0.0.0"
    port = int(matched.group(2)) if matched.group(2) else default_port
    if port > 65535:
        raise Misconfigured(f"'{text}' names port {port}", hint="a port is 0 to 65535")
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        raise Misconfigured(f"'{host}' is not a host name", hint="write HOST:PORT")
    return Address(host, port)
