"""`worker.py` and `scheduler.py` as two processes, alone and beside `up`."""

from collections.abc import Iterator

import pytest

from tests.support.agents import MAX, TOWN
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import gone
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["embedded", "redis_url"])
def any_daemon(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Daemon]:
    """A town with its own server, and one whose settings name a server."""
    said = f'[daemon]\nredis_url = "{redis_url}"\n' if request.param == "redis_url" else "[daemon]\n"
    with a_daemon(TOWN.replace("[daemon]\n", said)) as made:
        yield made


def test_worker_and_scheduler_do_what_up_does(any_daemon: Daemon) -> None:
    daemon = any_daemon
    scheduler = daemon.script("scheduler.py")
    worker = daemon.script("worker.py")
    eventually(lambda: daemon.state().heartbeat_count > 0, deadline=DEADLINE)
    session = daemon.run(MAX)

    daemon.done(daemon.ask("cycle", handoff="kept"))

    assert gone(session.pid)
    successor = daemon.living(MAX)
    assert (daemon.settings.handoff_dir / f"{session.name}.md").read_text() == "kept"
    assert daemon.state().pid == worker.pid
    assert daemon.document("status")["verdict"] == "running"
    assert (worker.stop(), scheduler.stop()) == (0, 0), worker.words() + scheduler.words()
    assert not daemon.state().running
    assert identity(daemon.living(MAX)) == identity(successor)


def test_a_worker_beside_up_is_harmless(daemon: Daemon) -> None:
    up = daemon.up()
    beside = daemon.script("worker.py")
    eventually(lambda: "clerk" in beside.words(), deadline=DEADLINE)
    daemon.run(MAX)

    for _ in range(3):
        daemon.done(daemon.ask("restart", incarnation=daemon.living(MAX).incarnation))

    assert len((daemon.root / "work" / "max" / "starts").read_text().split()) == 4
    assert daemon.state().pid == up.pid
    assert beside.stop() == 0
    assert daemon.state().running, "another process still serves the town"
    daemon.done(daemon.ask("restart"))
    assert daemon.document("status")["verdict"] == "running"


def test_a_worker_that_has_no_tmux_or_no_redis_says_so(daemon: Daemon) -> None:
    for name in ("worker.py", "scheduler.py"):
        missing = daemon.script(name, environ={"GASTOWN_REDIS_URL": "redis://127.0.0.1:1"})

        assert missing.popen.wait(DEADLINE) == 3
        assert "127.0.0.1:1" in missing.words()
        assert "Traceback" not in missing.words()

    no_tmux = daemon.script("worker.py", environ={"PATH": "/nowhere"})
    assert no_tmux.popen.wait(DEADLINE) == 5
    assert "tmux" in no_tmux.words()
