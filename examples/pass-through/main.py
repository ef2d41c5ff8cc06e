"""Gives back every byte that it is sent."""

from collections.abc import AsyncIterator

from sth import Context, sequence

OCTET = "application/octet-stream"


@sequence(input=OCTET, output=OCTET)
async def main(chunks: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
