"""Fixtures for tests with real daemon processes."""

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon, a_daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A town with an embedded Redis; nothing runs yet."""
    with a_daemon() as daemon:
        yield daemon
