"""The Sequences that are measured, packed in memory."""

import io
import json
import tarfile

PYTHON_PASS = """\
requires = {"requires": "", "contentType": "application/octet-stream"}
provides = {"provides": "", "contentType": "application/octet-stream"}


async def run(context, input, *args):
    async for chunk in input:
        yield chunk
"""

PYTHON_LINES = """\
async def run(context, input, *args):
    async for line in input:
        yield line
"""

PYTHON_SOURCE = """\
async def run(context, input, *args):
    yield "hello\\n"
    async for line in input:
        yield line
"""

NODE_SOURCE = """\
module.exports = function (stream) {
    return (async function* () { yield "hello\\n"; yield* stream; })();
};
"""


def pack(name: str, source: str, *, language: str = "python3") -> bytes:
    """A package of one module."""
    main = "main.py" if language == "python3" else "main.js"
    manifest = {"name": name, "version": "1.0.0", "main": main, "engines": {language: ">=3"}}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in (("package.json", json.dumps(manifest)), (main, source)):
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()
