"""Killed processes of the daemon: their death is noticed, not only the next sweep."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from gastown_mail.plumbing.embedded import is_server_running
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.session import Session
from tests.support.agents import DEAF_RECORDER, MAX, MAXINE, a_crew
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.processes import family, lives
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

NEVER = "[daemon]\nheartbeat_interval = 3600\nsweep_interval = 3600\nrestart_backoff = 0\n"
"""With these settings work resumes because a death or a start was noticed, not because time has passed."""

OFTEN = "[daemon]\nheartbeat_interval = 1\nsweep_interval = 1\nrestart_backoff = 0\n"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with a_running_daemon(a_crew(DEAF_RECORDER, 1.5, NEVER)) as daemon:
        yield daemon


@pytest.fixture
def beating() -> Iterator[Daemon]:
    with a_running_daemon(a_crew(daemon=OFTEN)) as daemon:
        yield daemon


def begun(daemon: Daemon, action: str) -> tuple[Session, str, psutil.Process]:
    """Send a request and return while it is carried out: its session, its id and the worker."""
    before = daemon.run(MAX)
    ident = daemon.ask(action)
    eventually(lambda: daemon.status(ident) == "carrying", deadline=DEADLINE, step=0.005)
    return before, ident, daemon.lease_owner(MAX)


def kill_at_once(*victims: psutil.Process) -> None:
    """Send SIGKILL to all of them before any can notice that another has ended."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for victim in victims:
            # A client of tmux may have ended by itself.
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
    eventually(lambda: not any(map(lives, victims)))


def kill_everything(daemon: Daemon) -> None:
    """Kill `up` and everything that it started except Redis, tmux and the agents."""
    kill_at_once(*reversed(daemon.process.family()))
    daemon.process.popen.wait(DEADLINE)


def assert_done_once(daemon: Daemon, before: Session, ident: str) -> None:
    assert daemon.outcome(ident) == "done"
    assert processes.with_incarnation(before.incarnation) == set()
    after = eventually(daemon.started, deadline=DEADLINE)
    assert after is not None
    assert daemon.starts() == [before.incarnation, after.incarnation]


def test_a_worker_killed_in_the_middle(daemon: Daemon) -> None:
    before, ident, worker = begun(daemon, "cycle")

    kill_at_once(worker)

    assert_done_once(daemon, before, ident)


def test_both_workers_killed_in_the_middle(daemon: Daemon) -> None:
    before, ident, _ = begun(daemon, "cycle")

    kill_at_once(daemon.child("lifecycle-1"), daemon.child("lifecycle-2"))

    assert_done_once(daemon, before, ident)


def test_a_worker_killed_in_the_middle_of_several_jobs(daemon: Daemon) -> None:
    befores = {address: daemon.run(address) for address in (MAX, MAXINE)}
    idents = {address: daemon.ask("cycle", address) for address in befores}
    eventually(lambda: {daemon.status(ident) for ident in idents.values()} == {"carrying"}, step=0.005)

    kill_at_once(*{daemon.lease_owner(address) for address in befores})

    for address, before in befores.items():
        assert daemon.outcome(idents[address]) == "done"
        after = eventually(lambda address=address: daemon.started(address), deadline=DEADLINE)  # type: ignore[misc]
        assert after is not None
        assert daemon.starts(address) == [before.incarnation, after.incarnation]


def test_both_lifecycle_workers_killed(daemon: Daemon) -> None:
    before = daemon.run(MAX)
    kill_at_once(daemon.child("lifecycle-1"), daemon.child("lifecycle-2"))

    assert_done_once(daemon, before, daemon.ask("restart"))


def test_the_clerk_killed(daemon: Daemon) -> None:
    before, clerk = daemon.run(MAX), daemon.child("clerk")
    os.kill(clerk.pid, signal.SIGSTOP)
    ident = daemon.ask("restart")
    kill_at_once(clerk)

    assert_done_once(daemon, before, ident)


@pytest.mark.parametrize("name", ["heartbeat", "scheduler"])
def test_the_heartbeat_worker_or_the_scheduler_killed(beating: Daemon, name: str) -> None:
    session, count = beating.run(MAX), beating.town.state.read().heartbeat_count

    kill_at_once(*family(beating.child(name)))
    eventually(lambda: beating.town.state.read().heartbeat_count >= count + 3, deadline=DEADLINE)

    assert beating.started() == session


def test_the_whole_daemon_killed_in_the_middle_and_started_again(daemon: Daemon) -> None:
    bystander = daemon.run(MAXINE)
    before, ident, _ = begun(daemon, "cycle")

    kill_everything(daemon)
    assert daemon.started(MAXINE) == bystander
    assert process_table.read_process(before.pid) is not None, "agents outlive the daemon"
    daemon.up()

    assert_done_once(daemon, before, ident)
    assert daemon.started(MAXINE) == bystander


def test_the_whole_daemon_and_its_redis_killed_in_the_middle_and_started_again(daemon: Daemon) -> None:
    bystander = daemon.run(MAXINE)
    before, ident, _ = begun(daemon, "cycle")
    redis = psutil.Process(daemon.redis_pid())

    kill_everything(daemon)
    kill_at_once(redis)
    eventually(lambda: not is_server_running(daemon.settings.redis_dir))
    daemon.up()

    assert_done_once(daemon, before, ident)
    assert daemon.started(MAXINE) == bystander


def test_only_the_first_process_killed_and_started_again_while_its_children_finish(daemon: Daemon) -> None:
    before, ident, _ = begun(daemon, "cycle")

    daemon.process.stop(signal.SIGKILL)
    daemon.up()

    assert_done_once(daemon, before, ident)


def test_the_tmux_server_killed_in_the_middle_ends_in_one_successor() -> None:
    with a_running_daemon(a_crew(DEAF_RECORDER, 1.5, OFTEN)) as daemon:
        before, ident, _ = begun(daemon, "cycle")

        kill_at_once(psutil.Process(daemon.tmux_pid()))

        assert_done_once(daemon, before, ident)


def test_a_killed_tmux_server_brings_back_only_agents_that_should_run() -> None:
    toml = a_crew(daemon=OFTEN).replace(
        '[agents."gastown/crew/max"]', '[agents."gastown/crew/max"]\nkeep_running = true'
    )
    with a_running_daemon(toml) as daemon:
        first = eventually(daemon.started, deadline=DEADLINE)
        daemon.run(MAXINE)
        assert first is not None
        kill_at_once(psutil.Process(daemon.tmux_pid()))

        second = eventually(lambda: (s := daemon.started()) and s.pid != first.pid and s, deadline=DEADLINE)

        assert second
        assert len(daemon.starts(MAX)) == 2
        assert daemon.session(MAXINE) is None
        assert len(daemon.starts(MAXINE)) == 1
