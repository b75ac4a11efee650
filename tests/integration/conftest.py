"""Fixtures for tests with a real tmux."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.tmux_world import TmuxWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TmuxWorld]:
    """A tmux server of the test's own; the test fails if anything of it is left."""
    made = TmuxWorld(tmp_path)
    yield made
    made.close()
