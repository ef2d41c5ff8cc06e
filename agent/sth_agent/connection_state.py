"""What the agent remembers of its connections from one run to the next."""

from pathlib import Path

from sth_agent.private_files import read_json, write_private_json
from sth_protocol.errors import Misconfigured


class ConnectionState:
    """A counter that rises with every connection, and the addresses that the broker last told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            values = read_json(path) or {}
        except Misconfigured:
            # A broken file must not keep a machine away for ever; the broker refuses an epoch that
            # is too low only while it holds a newer link.
            values = {}
        epoch, addresses = values.get("epoch"), values.get("addresses")
        self._epoch = epoch if isinstance(epoch, int) and epoch >= 0 else 0
        self.addresses = tuple(map(str, addresses)) if isinstance(addresses, list) else ()

    def next_epoch(self) -> int:
        """The number of the next connection; durable before it is used."""
        self._epoch += 1
        self._save()
        return self._epoch

    def remember(self, addresses: tuple[str, ...]) -> None:
        """Keep what the broker told; an empty list changes nothing."""
        if addresses and addresses != self.addresses:
            self.addresses = addresses
            self._save()

    def _save(self) -> None:
        write_private_json(self._path, {"epoch": self._epoch, "addresses": list(self.addresses)})
