"""Passes records on: from its input, or a Topic, to its output, or another Topic."""

from collections.abc import AsyncIterator
from typing import Any

from sth import Context, sequence

NDJSON = "application/x-ndjson"


@sequence(input=NDJSON, output=NDJSON)
async def main(records: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    async for record in records:
        yield record
