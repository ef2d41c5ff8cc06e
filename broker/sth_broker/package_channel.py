"""Packages on their way to the agents that run them."""

import asyncio
import logging

from sth_broker.channel import Channel
from sth_broker.hub_link import HubLink
from sth_broker.sequences import SequenceRegistry
from sth_broker.store.interface import Packages
from sth_protocol.errors import NotFound, StorageFailed

logger = logging.getLogger(__name__)

READ_BYTES = 256 * 1024


class PackageServer:
    """Answers the channels of kind "package"."""

    def __init__(self, *, sequences: SequenceRegistry, packages: Packages) -> None:
        self._sequences = sequences
        self._packages = packages

    async def serve(self, link: HubLink, channel: Channel) -> None:
        """Send the package, if it belongs to a Sequence of that Hub's Space. NotFound,
        StorageFailed."""
        sha256 = channel.info.get("sha256")
        # What belongs to another Space is answered like what is not there.
        if not isinstance(sha256, str) or not self._sequences.has_package(link.space, sha256):
            raise NotFound("no such package")
        size = await self._packages.size(sha256)
        file = await self._packages.open(sha256)
        try:
            channel.accept({"size": size})
            while data := await asyncio.to_thread(file.read, READ_BYTES):
                await channel.write(data)
        except OSError as error:
            logger.error("package %s cannot be read: %s", sha256, error)
            raise StorageFailed(f"the package cannot be read: {error.strerror}") from None
        finally:
            await asyncio.to_thread(file.close)
        channel.finish()
        await channel.wait_closed()
