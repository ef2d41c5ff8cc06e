"""A broker for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api import Api, running_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A whole broker on loopback, without a Hub."""
    async with running_api(tmp_path / "broker") as running:
        yield running
