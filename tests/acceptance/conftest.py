"""Fixtures for tests with real daemon processes."""

from collections.abc import Iterator

import pytest

from tests.acceptance.daemons import Place, a_place


@pytest.fixture
def place() -> Iterator[Place]:
    """A town with an embedded Redis; nothing runs yet, and nothing is left afterwards."""
    with a_place() as made:
        yield made
