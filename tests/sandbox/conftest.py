"""Spawners for tests: one for a module where tests only start Instances, or one for a test."""

from collections.abc import Iterator

import pytest
from tests.sandbox.spawned import Agent, Spawner, modes


@pytest.fixture(scope="module", params=modes())
def module_spawner(request: pytest.FixtureRequest) -> Iterator[Spawner]:
    spawner = Spawner(ordinary=request.param == "ordinary")
    yield spawner
    spawner.close()


@pytest.fixture
def shared_spawner(module_spawner: Spawner) -> Iterator[Spawner]:
    """The module's; the agents of one test end with it."""
    yield module_spawner
    module_spawner.close_agents()


@pytest.fixture
def agent(shared_spawner: Spawner) -> Agent:
    return shared_spawner.agent()


@pytest.fixture(params=modes())
def spawner(request: pytest.FixtureRequest) -> Iterator[Spawner]:
    spawner = Spawner(ordinary=request.param == "ordinary")
    yield spawner
    spawner.close()
