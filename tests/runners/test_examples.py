"""Every example runs in its runner and does what its README says."""

import json
import os
from pathlib import Path

import pytest
from tests.runners.conftest import NEEDS_NODE
from tests.runners.driver import Ended, running

EXAMPLES = Path(__file__).parents[2] / "examples"
OCTET = "application/octet-stream"
TEXT = "text/plain"
NDJSON = "application/x-ndjson"


async def fed(example: str, content_type: str, *payloads: bytes) -> Ended:
    """What an example makes of some input."""
    package = json.loads((EXAMPLES / example / "package.json").read_bytes())
    language = "python" if "python3" in package["engines"] else "node"
    async with running(language, EXAMPLES / example, main=package["main"]) as runner:
        await runner.open_input(content_type)
        await runner.feed(*payloads)
        await runner.end_input()
        return await runner.wait()


@pytest.mark.parametrize("example", ["pass-through", pytest.param("node-pass", marks=NEEDS_NODE)])
async def test_pass_through_gives_back_every_byte(example: str) -> None:
    payload = os.urandom(50_000)
    ended = await fed(example, OCTET, payload, b"\n")
    assert (ended.code, ended.content) == (0, payload + b"\n")
    assert ended.declared["content_type"] == OCTET


@pytest.mark.parametrize("example", ["shout-lines", pytest.param("node-lines", marks=NEEDS_NODE)])
async def test_lines_become_capitals(example: str) -> None:
    ended = await fed(example, TEXT, b"one\ntw", b"o\nstra\xc3\x9fe")
    assert (ended.code, ended.content) == (0, b"ONE\nTWO\nSTRASSE")
    assert ended.declared["content_type"] == TEXT


async def test_relay_passes_records_on() -> None:
    ended = await fed("relay", NDJSON, b'{"n": 1}\n{"n": 2}\n')
    assert (ended.code, ended.content) == (0, b'{"n":1}\n{"n":2}\n')
    assert ended.declared["content_type"] == NDJSON


def test_every_example_is_described() -> None:
    for example in EXAMPLES.iterdir():
        if example.is_dir():
            assert (example / "README.md").read_text().startswith(f"# {example.name}\n")
            assert json.loads((example / "package.json").read_bytes())["name"] == example.name
