"""Turns lines of text into capitals."""

from collections.abc import AsyncIterator

provides = {"contentType": "text/plain"}


async def run(context: object, input: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in input:
        yield line.upper()
