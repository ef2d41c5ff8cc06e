"""One real system for the tests that do not break it, and the means to make others."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.system import System


@pytest.fixture(scope="session")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A broker, its built-in Hub, and a second Hub `edge`. Tests leave it as they found it."""
    with System(tmp_path_factory.mktemp("shared")) as system:
        system.join_agent("edge")
        yield system


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A broker without a Hub, of the test's own."""
    with System(tmp_path / "system", local_hub=False) as made:
        yield made


@pytest.fixture
def needs_node() -> None:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
