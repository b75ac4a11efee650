"""One world for each test; without namespaces the tests are skipped, in CI they fail."""

import os
from collections.abc import Iterator

import pytest

from tests.hosts.world import World, a_world, why_impossible


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where hosts cannot be made; in CI that is a failure."""
    if not os.environ.get("HOSTS"):
        pytest.skip("hosts as namespaces need root and some minutes: make hosts")
    if why := why_impossible():
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"no host can be made here, and in CI these tests must run: {why}")
        pytest.skip(f"no host can be made here: {why}")


@pytest.fixture
def world(namespaces: None) -> Iterator[World]:
    with a_world() as world:
        yield world
