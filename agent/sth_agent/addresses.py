"""Addresses of the broker: how they are written, and the order in which they are tried."""

from collections.abc import Iterable
from dataclasses import dataclass

from sth_protocol.errors import BadRequest

DEFAULT_PORT = 8443
# Every broker's certificate carries this name, so that a change of address needs no new one and the
# check of the name is never switched off.
SERVER_NAME = "broker.sth.invalid"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker's agents' port may be found."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host`, `host:port` or `[v6]:port`; BadRequest if it is none of them."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, closing, rest = host[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise BadRequest(f"'{text}' is not an address")
        port = rest[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    number = DEFAULT_PORT
    if port:
        number = int(port) if port.isascii() and port.isdigit() else 0
    if not host or any(each in host for each in "/ []") or not 0 < number < 65536:
        raise BadRequest(f"'{text}' is not an address", hint="write host:port")
    return Address(host, number)


def address_list(*sources: Iterable[str]) -> tuple[Address, ...]:
    """The addresses of all sources, each once, in order; what cannot be read is left out."""
    found: dict[Address, None] = {}
    for source in sources:
        for text in source:
            try:
                found.setdefault(parse_address(text))
            except BadRequest:
                continue
    return tuple(found)
