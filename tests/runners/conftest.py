from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.runners.driver import NODE, Runner, running, write_program
from tests.runners.programs import PROGRAMS

Start = Callable[..., AbstractAsyncContextManager[Runner]]

NEEDS_NODE = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


@pytest.fixture(params=["python", pytest.param("node", marks=NEEDS_NODE)])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(language: str, tmp_path: Path) -> Start:
    """Starts a program of PROGRAMS by its name."""

    def started(name: str, **fields: Any) -> AbstractAsyncContextManager[Runner]:
        package = write_program(tmp_path / "package", language, PROGRAMS[name][language])
        return running(language, package, **fields)

    return started


@pytest.fixture
def start_python(tmp_path: Path) -> Start:
    """Starts a Python program given as source."""

    def started(source: str, **fields: Any) -> AbstractAsyncContextManager[Runner]:
        return running("python", write_program(tmp_path / "package", "python", source), **fields)

    return started


@pytest.fixture
def start_node(tmp_path: Path) -> Start:
    """Starts a Node program given as source."""
    if NODE is None:
        pytest.skip("Node.js is not installed")

    def started(source: str, **fields: Any) -> AbstractAsyncContextManager[Runner]:
        return running("node", write_program(tmp_path / "package", "node", source), **fields)

    return started
