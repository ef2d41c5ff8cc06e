"""Small Sequences, packed in memory."""

import io
import json
import tarfile
from collections.abc import Mapping

OCTET = "application/octet-stream"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"


def package(
    files: Mapping[str, str], *, name: str = "sample", main: str, engine: str = "python3"
) -> bytes:
    """A tar.gz of `files` and a package.json."""
    manifest = {"name": name, "version": "1.0.0", "main": main, "engines": {engine: ">=3"}}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in {"package.json": json.dumps(manifest), **files}.items():
            data = text.encode()
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def python(source: str, *, name: str = "sample") -> bytes:
    return package({"main.py": source}, name=name, main="main.py")


def node(source: str, *, name: str = "sample-node") -> bytes:
    return package({"main.js": source}, name=name, main="main.js", engine="node")


PASS_THROUGH = """
requires = {"requires": "", "contentType": "application/octet-stream"}
provides = {"provides": "", "contentType": "application/octet-stream"}

async def run(context, input, *args):
    async for chunk in input:
        yield chunk
"""

LINES = """
async def run(context, input, *args):
    async for line in input:
        yield line
"""

# Counts and waits, so that it is still there when machines go and come.
RECORDS = """
requires = {"requires": "", "contentType": "application/x-ndjson"}
provides = {"provides": "", "contentType": "application/x-ndjson"}

async def run(context, input, *args):
    async for record in input:
        yield record
"""
