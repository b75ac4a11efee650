"""Fixtures for tests with a real tmux."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gastown_mail.sessions.session import Session
from gastown_mail.town.town import Town
from tests.integration.carriers import Carriers
from tests.integration.tmux_world import RECORDER, Recorder, TmuxWorld, python
from tests.support.agents import RECORDED
from tests.support.stage import Stage


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TmuxWorld]:
    """A tmux server of the test's own; the test fails if anything of it is left."""
    made = TmuxWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def recorder(world: TmuxWorld, tmp_path: Path) -> Recorder:
    def start(mode: str = "raw", name: str = "recorder") -> tuple[Session, Path]:
        record = tmp_path / f"{name}.record"
        session = world.start(python(RECORDER, record, mode), name)
        world.wait_for(record)
        return session, record

    return start


@pytest.fixture
def stage(make_town: Callable[..., Town]) -> Stage:
    """A town of two crew members and a witness, all recorders; nothing runs."""
    return Stage(make_town(RECORDED))


@pytest.fixture
def carriers() -> Iterator[Carriers]:
    """Processes that carry requests out."""
    made = Carriers()
    yield made
    made.close()
