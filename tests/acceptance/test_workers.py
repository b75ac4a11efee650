"""`worker.py` and `scheduler.py` as two processes, and beside `up`."""

from collections.abc import Iterator

import pytest

from tests.acceptance.daemons import DEADLINE, TOWN, Place, a_place
from tests.integration.stage import MAX, gone, identity
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["embedded", "redis_url"])
def any_place(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Place]:
    """A town with its own server, and one whose settings name a server."""
    said = f'[daemon]\nredis_url = "{redis_url}"\n' if request.param == "redis_url" else "[daemon]\n"
    with a_place(TOWN.replace("[daemon]\n", said)) as made:
        yield made


def test_worker_and_scheduler_do_what_up_does(any_place: Place) -> None:
    place = any_place
    scheduler = place.script("scheduler.py")
    worker = place.script("worker.py")
    eventually(lambda: place.state().heartbeat_count > 0, deadline=DEADLINE)
    session = place.run(MAX)

    place.done(place.ask(MAX, "cycle", handoff="kept"))

    assert gone(session.pid)
    successor = place.living(MAX)
    assert (place.settings.handoff_dir / f"{session.name}.md").read_text() == "kept"
    assert place.state().pid == worker.pid
    assert place.document("status")["verdict"] == "running"
    assert (worker.stop(), scheduler.stop()) == (0, 0), worker.words() + scheduler.words()
    assert not place.state().running
    assert identity(place.living(MAX)) == identity(successor)


def test_a_worker_beside_up_is_harmless(place: Place) -> None:
    up = place.up()
    beside = place.script("worker.py")
    eventually(lambda: "clerk" in beside.words(), deadline=DEADLINE)
    place.run(MAX)

    for _ in range(3):
        place.done(place.ask(MAX, "restart", incarnation=place.living(MAX).incarnation))

    assert len((place.root / "work" / "max" / "starts").read_text().split()) == 4
    assert place.state().pid == up.pid
    assert beside.stop() == 0
    assert place.state().running, "another process still serves the town"
    place.done(place.ask(MAX, "restart"))
    assert place.document("status")["verdict"] == "running"


def test_a_worker_that_has_no_tmux_or_no_redis_says_so(place: Place) -> None:
    for name in ("worker.py", "scheduler.py"):
        missing = place.python(
            str(place.script_path(name)), environ={"GASTOWN_REDIS_URL": "redis://127.0.0.1:1"}
        )

        assert missing.popen.wait(DEADLINE) == 3
        assert "127.0.0.1:1" in missing.words()
        assert "Traceback" not in missing.words()

    no_tmux = place.python(str(place.script_path("worker.py")), environ={"PATH": "/nowhere"})
    assert no_tmux.popen.wait(DEADLINE) == 5
    assert "tmux" in no_tmux.words()
