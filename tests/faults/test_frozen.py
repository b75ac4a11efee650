"""A worker that was frozen across a whole cycle does no harm when it resumes."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from gastown_mail.sessions import process_table, processes
from gastown_mail.town.records import Desired
from tests.support.agents import DEAF_RECORDER, MAX, MAXINE, a_crew
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.processes import stopped
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

GRACE = 2.0
"""Seconds that the agent takes to stop: enough time to freeze the worker that waits for it."""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with a_running_daemon(a_crew(DEAF_RECORDER, GRACE)) as daemon:
        yield daemon


def frozen_in_the_middle(daemon: Daemon, ident: str) -> psutil.Process:
    """Freeze the worker that carries out the request while it ends the old session; return it."""
    eventually(lambda: daemon.status(ident) == "carrying", deadline=DEADLINE, step=0.005)
    worker = daemon.lease_owner(MAX)
    os.kill(worker.pid, signal.SIGSTOP)
    return worker


def decided(daemon: Daemon) -> dict[str, object]:
    """What the agent's record says, without what a sweep sees anew."""
    seen = {"state", "state_since", "state_line", "screen", "last_activity", "decision"}
    return daemon.record().model_dump(exclude=seen)


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
def test_a_worker_frozen_across_a_whole_cycle_does_no_harm_when_it_resumes(
    daemon: Daemon, action: str
) -> None:
    bystander, before = daemon.run(MAXINE), daemon.run(MAX)
    ident = daemon.ask(action, incarnation=before.incarnation)
    worker = frozen_in_the_middle(daemon, ident)

    assert daemon.outcome(ident) == "done"
    settled, after, record = daemon.town.requests.record(ident), daemon.session(), decided(daemon)
    assert worker.status() == psutil.STATUS_STOPPED, "another worker has done it"
    worker.send_signal(signal.SIGCONT)
    daemon.wait_until_idle(worker)

    assert daemon.town.requests.record(ident) == settled
    assert daemon.session() == after
    assert decided(daemon) == record
    assert processes.with_incarnation(before.incarnation) == set()
    assert daemon.started(MAXINE) == bystander
    if action == "shutdown":
        assert after is None
        assert len(daemon.starts()) == 1
    else:
        assert after is not None
        assert process_table.read_process(after.pid) is not None
        assert daemon.starts() == [before.incarnation, after.incarnation]


def test_a_parent_frozen_with_its_worker_changes_nothing(daemon: Daemon) -> None:
    before = daemon.run(MAX)
    ident = daemon.ask("restart")
    worker = frozen_in_the_middle(daemon, ident)
    parent = worker.parent()
    assert parent is not None

    with stopped(parent.pid):
        assert daemon.outcome(ident) == "done"
        after = eventually(daemon.started)
    worker.send_signal(signal.SIGCONT)
    daemon.wait_until_idle(worker)

    assert after is not None
    assert daemon.started() == after
    assert daemon.starts() == [before.incarnation, after.incarnation]


def test_a_worker_frozen_through_later_requests_touches_none_of_their_sessions(daemon: Daemon) -> None:
    daemon.run(MAX)
    first = daemon.ask("cycle", handoff="the first")
    worker = frozen_in_the_middle(daemon, first)
    assert daemon.outcome(first) == "done"
    second = daemon.ask("cycle", handoff="the second")
    assert daemon.outcome(second) == "done"
    after = eventually(daemon.started)

    worker.send_signal(signal.SIGCONT)
    daemon.wait_until_idle(worker)

    assert after is not None
    assert daemon.started() == after
    assert len(daemon.starts()) == 3
    eventually(lambda: daemon.work("handoff").read_text() == "the second")
    assert (daemon.settings.handoff_dir / f"{after.name}.md").read_text() == "the second"


def test_a_handoff_that_is_written_too_late_overwrites_no_later_one(daemon: Daemon) -> None:
    daemon.run(MAX)
    first = daemon.ask("cycle", handoff="the first" * 7000)
    worker, folder = daemon.lease_owner(MAX), daemon.settings.handoff_dir
    eventually(lambda: folder.exists() and any(folder.iterdir()), deadline=DEADLINE, step=0.0001)
    os.kill(worker.pid, signal.SIGSTOP)
    assert daemon.outcome(first) == "done"
    assert daemon.outcome(daemon.ask("cycle", handoff="the second")) == "done"

    worker.send_signal(signal.SIGCONT)
    daemon.wait_until_idle(worker)

    after = eventually(daemon.started)
    assert after is not None
    assert (folder / f"{after.name}.md").read_text() == "the second"
    assert len(daemon.starts()) == 3


def test_a_worker_frozen_until_after_a_shutdown_starts_nothing(daemon: Daemon) -> None:
    before = daemon.run(MAX)
    worker = frozen_in_the_middle(daemon, first := daemon.ask("restart"))
    assert daemon.outcome(first) == "done"
    assert daemon.outcome(daemon.ask("shutdown")) == "done"

    worker.send_signal(signal.SIGCONT)
    daemon.wait_until_idle(worker)

    assert daemon.session() is None
    assert len(daemon.starts()) == 2
    assert processes.with_incarnation(before.incarnation) == set()
    assert daemon.record().desired is Desired.STOPPED


def test_the_whole_daemon_frozen_for_longer_than_every_lease_resumes(daemon: Daemon) -> None:
    bystander, before = daemon.run(MAXINE), daemon.run(MAX)
    ident = daemon.ask("cycle")
    eventually(lambda: daemon.status(ident) == "carrying", deadline=DEADLINE, step=0.005)

    with stopped(*(process.pid for process in daemon.process.family())):
        locks = [daemon.town.keys.lease(MAX), daemon.town.keys.clerk]
        eventually(lambda: not daemon.town.redis.exists(*locks), deadline=DEADLINE)
        assert daemon.started(MAXINE) == bystander

    assert daemon.outcome(ident) == "done"
    after = eventually(daemon.started, deadline=DEADLINE)
    assert after is not None
    assert daemon.starts() == [before.incarnation, after.incarnation]
    assert daemon.started(MAXINE) == bystander


def test_a_clerk_frozen_for_longer_than_its_lease_accepts_nothing_twice(daemon: Daemon) -> None:
    daemon.run(MAX)
    clerk = daemon.child("clerk")
    with stopped(clerk.pid):
        ident = daemon.ask("restart")
        key = daemon.town.keys.clerk
        eventually(lambda: not daemon.town.redis.exists(key), deadline=DEADLINE)
        assert daemon.status(ident) == ""

    assert daemon.outcome(ident) == "done"
    assert len(daemon.starts()) == 2
    assert daemon.town.redis.llen(daemon.town.keys.taken) == 0
