"""One town in containers for all tests of this folder, which need a Docker engine with Compose."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import SLOW_AGENT, Stack, a_stack, works

NEEDED = (["docker", "info"], ["docker", "compose", "version"])


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip where there is no engine; in CI its absence is a failure."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the tests of compose share one town and run in one process: docker/ci-compose")
    missing = next((" ".join(words) for words in NEEDED if not works(*words)), None)
    if missing and os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"`{missing}` does not work, and in CI the tests of compose must run")
    if missing:
        pytest.skip(f"`{missing}` does not work: the tests of compose need a Docker engine with Compose")


@pytest.fixture(scope="session")
def stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A town after its first `docker compose up -d --wait`, with one more agent than the sample."""
    with a_stack(tmp_path_factory.mktemp("compose")) as stack:
        _keep_ada_at_work(stack.folder / "docker/sample/town.toml")
        stack.up()
        with (stack.folder / "town/town.toml").open("a") as file:
            file.write(SLOW_AGENT)
        yield stack


def _keep_ada_at_work(sample: Path) -> None:
    """Keep the sample's agent from cycling by itself in the middle of a test."""
    text = sample.read_text()
    assert 'STEPS = "6"' in text
    sample.write_text(text.replace('STEPS = "6"', 'STEPS = "10000"'))
