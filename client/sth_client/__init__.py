"""The client library and the `sth` command. Knows only the HTTP API.

    from sth_client import Client           # blocking, standard library only
    from sth_client.aio import Client       # the same methods as coroutines, on aiohttp

Errors are those of `sth_protocol.errors`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sth_client.sync import ByteStream, Client

__all__ = ["ByteStream", "Client"]


def __getattr__(name: str) -> object:
    # Resolved on first use: `sth --version` would otherwise pay for an HTTP client.
    if name in __all__:
        from sth_client import sync

        return getattr(sync, name)
    raise AttributeError(f"module 'sth_client' has no attribute {name!r}")
