"""The program that `warming` runs in the zygote."""

from collections.abc import AsyncIterator
from typing import Any


async def run(context: Any, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Every line, logged."""
    async for line in lines:
        context.logger.debug("line")
        yield line
