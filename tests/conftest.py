"""Fixtures with real parts that many tests share."""

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gastown_mail.plumbing.embedded import ensure_server, stop_server
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.redis import OwnServer, own_server
from tests.support.run_folder import end_run, make_run_folder
from tests.support.town import a_town

RUN_FOLDER = pytest.StashKey[Path]()

# a busy machine is no fault of the code under test
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With TEST_SHUFFLED=NUMBER, run the tests in an order that this number gives."""
    if seed := os.environ.get("TEST_SHUFFLED"):
        random.Random(seed).shuffle(items)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run its folder, and this process its own folder for tmux sockets in it."""
    if not hasattr(config, "workerinput"):
        config.stash[RUN_FOLDER] = folder = make_run_folder()
        config.option.basetemp = config.option.basetemp or str(folder / "p")
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            # under nohup and in the background; the tests' own processes must not inherit that
            signal.signal(number, lambda *_: None)
    # what tmux starts in a person's window; a user may have no login shell
    os.environ.setdefault("SHELL", shutil.which("bash") or "/bin/sh")
    os.environ["TMUX_TMPDIR"] = tempfile.mkdtemp(prefix="tmux-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what is left of the run; each test has ended its own processes."""
    if folder := config.stash.get(RUN_FOLDER, None):
        for left in end_run(folder):
            sys.stderr.write(f"ended at the end of the run: {left}\n")


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
