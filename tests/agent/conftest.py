"""A broker's core for those who dial it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.broker_core import Core, running_core


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """The agents' port of a broker on loopback."""
    async with running_core(tmp_path / "core") as running:
        yield running
