"""Fixtures with real parts that many tests share."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gastown_mail.plumbing.embedded import ensure_server, stop_server
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.redis import OwnServer, own_server
from tests.support.town import a_town


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With TEST_SHUFFLED=NUMBER, run the tests in an order that this number gives."""
    if seed := os.environ.get("TEST_SHUFFLED"):
        random.Random(seed).shuffle(items)


def pytest_configure() -> None:
    """Give this process its own folder for tmux sockets, so none is left in /tmp."""
    os.environ["TMUX_TMPDIR"] = tempfile.mkdtemp(prefix="gm-tmux-")


def pytest_unconfigure() -> None:
    """Remove that folder; each test has ended its own servers."""
    shutil.rmtree(os.environ["TMUX_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Valkey for all tests of a process; the towns' names keep them apart."""
    folder = tmp_path_factory.mktemp("redis")
    yield ensure_server(folder)
    stop_server(folder)


@pytest.fixture
def make_town(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., Town]]:
    """Makes towns that are gone after the test."""
    with ExitStack() as towns:
        yield lambda toml=TWO_AGENTS: towns.enter_context(a_town(tmp_path, redis_url, toml))


@pytest.fixture
def town(make_town: Callable[..., Town]) -> Town:
    """A town with `gastown/witness` and `gastown/crew/max`, nothing running."""
    return make_town()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    """A Valkey that the test may kill, stop and empty."""
    with own_server(tmp_path / "r") as server:
        yield server


@pytest.fixture
def own_town(tmp_path: Path, server: OwnServer) -> Iterator[Town]:
    """A town like `town`, on the test's own Valkey."""
    with a_town(tmp_path, server.url) as town:
        yield town
