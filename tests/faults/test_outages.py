"""Redis, tmux or the disk fail under a running daemon: no harm is done, nothing happens twice, it resumes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from redis.exceptions import RedisError
from rq.worker_registration import get_keys

from gastown_mail.contracts.errors import RequestNotAccepted
from gastown_mail.contracts.state import load_state
from gastown_mail.mail.send import send_lifecycle
from gastown_mail.town.records import Desired
from tests.support.agents import MAX, MAXINE, a_crew
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.processes import kill, stopped
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

KEEP_RUNNING = a_crew().replace("[roles.crew]", "[roles.crew]\nkeep_running = true")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with a_running_daemon(KEEP_RUNNING) as daemon:
        yield daemon


@pytest.fixture
def pids(daemon: Daemon) -> dict[str, int]:
    """The pids of the crew's sessions, started because the crew should run."""
    eventually(lambda: daemon.started(MAX) and daemon.started(MAXINE), deadline=DEADLINE)
    return alive(daemon)


def alive(daemon: Daemon) -> dict[str, int]:
    return {session.agent: session.pid for session in daemon.town.sessions.snapshot().values()}


def beats_on(daemon: Daemon) -> None:
    """Wait for a heartbeat that begins after now."""
    count = answered(daemon)
    eventually(lambda: answered(daemon) >= count + 2, deadline=DEADLINE)


def answered(daemon: Daemon) -> int:
    try:
        return daemon.town.state.read().heartbeat_count
    except RedisError:
        return 0


def assert_serves_on(daemon: Daemon, pids: dict[str, int]) -> None:
    """Check that all agents are still alive and that a request is done once."""
    assert alive(daemon) == pids
    starts = len(daemon.starts(MAX))
    assert daemon.outcome(daemon.ask("restart")) == "done"
    eventually(lambda: len(daemon.starts(MAX)) > starts)
    assert len(daemon.starts(MAX)) == starts + 1
    after = alive(daemon)
    assert after.pop(MAX) != pids[MAX]
    assert after == {address: pid for address, pid in pids.items() if address != MAX}


def registered(daemon: Daemon) -> int:
    return len(get_keys(connection=daemon.town.redis))


def test_a_killed_redis_is_restarted_and_loses_no_accepted_request(
    daemon: Daemon, pids: dict[str, int]
) -> None:
    clerk = daemon.child("clerk")
    with stopped(clerk.pid):
        ident = daemon.ask("restart", MAXINE)
        kill(psutil.Process(daemon.redis_pid()))
    assert alive(daemon) == pids

    eventually(lambda: answered(daemon), deadline=DEADLINE)

    assert daemon.outcome(ident) == "done"
    assert len(daemon.starts(MAXINE)) == 2
    beats_on(daemon)
    assert_serves_on(daemon, alive(daemon))
    assert daemon.logged("redis_started_again") == 1


def test_a_frozen_redis_is_waited_for(daemon: Daemon, pids: dict[str, int]) -> None:
    clerk = daemon.child("clerk")
    with stopped(clerk.pid):
        ident = daemon.ask("restart", MAXINE)
    with stopped(daemon.redis_pid()):
        with pytest.raises(RequestNotAccepted):
            send_lifecycle(
                "restart", agent=MAX, redis_url=daemon.town.redis_url, town=daemon.settings.town_name
            )
        assert alive(daemon)[MAX] == pids[MAX]

    assert daemon.outcome(ident) == "done"
    assert len(daemon.starts(MAXINE)) == 2
    beats_on(daemon)
    eventually(lambda: not daemon.town.requests.unsettled(), deadline=DEADLINE)
    assert_serves_on(daemon, alive(daemon))


def test_a_full_redis_refuses_and_does_no_harm(daemon: Daemon, pids: dict[str, int]) -> None:
    redis = daemon.town.redis
    with stopped(daemon.child("clerk").pid):
        ident = daemon.ask("restart", MAXINE)
        redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(RequestNotAccepted, match="out of memory"):
            send_lifecycle(
                "restart", agent=MAX, redis_url=daemon.town.redis_url, town=daemon.settings.town_name
            )
        before = daemon.logged("clerk_waits")
        eventually(lambda: daemon.logged("clerk_waits") > before, deadline=DEADLINE)
        assert alive(daemon) == pids
        assert daemon.status(ident) == ""
    finally:
        redis.config_set("maxmemory", "0")

    assert daemon.outcome(ident) == "done"
    assert len(daemon.starts(MAXINE)) == 2
    assert_serves_on(daemon, alive(daemon))


def test_after_redis_was_emptied_stopped_stays_stopped_and_workers_register_again(
    daemon: Daemon, pids: dict[str, int]
) -> None:
    assert daemon.outcome(daemon.ask("shutdown", MAXINE)) == "done"
    state, workers = load_state(daemon.root), registered(daemon)
    left = alive(daemon)

    daemon.town.redis.flushall()

    eventually(lambda: daemon.record(MAXINE).desired is Desired.STOPPED, deadline=DEADLINE)
    beats_on(daemon)
    eventually(lambda: registered(daemon) == workers, deadline=DEADLINE)
    assert alive(daemon) == left == {MAX: pids[MAX]}
    assert daemon.session(MAXINE) is None
    after = load_state(daemon.root)
    assert (after.pid, after.started_at) == (state.pid, state.started_at)
    assert after.heartbeat_count > state.heartbeat_count
    assert_serves_on(daemon, left)


def test_a_stop_right_after_redis_was_emptied_keeps_desired_states(
    daemon: Daemon, pids: dict[str, int]
) -> None:
    assert daemon.outcome(daemon.ask("shutdown", MAXINE)) == "done"
    helpers = [process.pid for process in daemon.process.children()]
    with stopped(*helpers):
        daemon.town.redis.flushall()
        daemon.process.popen.terminate()
        eventually(lambda: daemon.town.redis.exists(daemon.town.keys.state), deadline=DEADLINE)
    assert daemon.process.popen.wait(DEADLINE) == 0

    daemon.up()
    beats_on(daemon)

    assert daemon.record(MAXINE).desired is Desired.STOPPED
    assert alive(daemon) == {MAX: pids[MAX]}


def test_an_operators_change_in_an_emptied_redis_keeps_other_desired_states(
    daemon: Daemon, pids: dict[str, int]
) -> None:
    assert daemon.outcome(daemon.ask("shutdown", MAXINE)) == "done"
    helpers = [process.pid for process in daemon.process.children()]
    with stopped(*helpers):
        daemon.town.redis.flushall()
        daemon.town.desired.pause(MAX)

    eventually(lambda: daemon.record(MAXINE).desired is Desired.STOPPED, deadline=DEADLINE)
    beats_on(daemon)
    assert daemon.record(MAX).desired is Desired.PAUSED
    assert alive(daemon) == {MAX: pids[MAX]}


def test_a_frozen_tmux_server_is_waited_for(daemon: Daemon, pids: dict[str, int]) -> None:
    server = daemon.tmux_pid()
    with stopped(server):
        ident = daemon.ask("restart")
        eventually(lambda: "waiting: tmux did not answer" in daemon.detail(ident), deadline=DEADLINE)
        eventually(lambda: daemon.logged("not_looked"), deadline=DEADLINE)

    assert daemon.outcome(ident) == "done"
    assert len(daemon.starts()) == 2
    assert daemon.tmux_pid() == server
    assert_serves_on(daemon, alive(daemon))


def test_without_the_socket_folder_tmux_does_not_count_as_dead(short_folder: Path) -> None:
    folder = short_folder / "sockets"
    folder.mkdir(mode=0o700)
    with a_running_daemon(KEEP_RUNNING, TMUX_TMPDIR=str(folder)) as daemon:
        eventually(lambda: len(daemon.starts(MAX)) == len(daemon.starts(MAXINE)) == 1, deadline=DEADLINE)
        with moved(folder, short_folder / "away"):
            ident = daemon.ask("restart")
            eventually(lambda: "waiting: " in daemon.detail(ident), deadline=DEADLINE)
            eventually(lambda: daemon.logged("not_looked"), deadline=DEADLINE)
            assert len(daemon.starts(MAX)) == len(daemon.starts(MAXINE)) == 1

        assert daemon.outcome(ident) == "done"
        assert len(daemon.starts(MAX)) == 2
        assert len(daemon.starts(MAXINE)) == 1


@contextmanager
def moved(folder: Path, away: Path) -> Iterator[None]:
    """Move the folder or file away inside the block."""
    folder.rename(away)
    try:
        yield
    finally:
        away.rename(folder)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="gf-") as folder:
        yield Path(folder)


def test_without_the_tmux_program_nothing_is_assumed(short_folder: Path) -> None:
    for name in ("sh", "cat", "env", "mv", "tmux"):
        (short_folder / name).symlink_to(str(shutil.which(name)))
    program = short_folder / "tmux"
    with a_running_daemon(KEEP_RUNNING, PATH=str(short_folder)) as daemon:
        eventually(lambda: daemon.started(MAX) and daemon.started(MAXINE), deadline=DEADLINE)
        pids = alive(daemon)
        with moved(program, short_folder / "away"):
            ident = daemon.ask("restart")
            eventually(lambda: "waiting: no tmux" in daemon.detail(ident), deadline=DEADLINE)
            eventually(lambda: daemon.logged("not_looked"), deadline=DEADLINE)
            assert alive(daemon) == pids

        assert daemon.outcome(ident) == "done"
        assert len(daemon.starts(MAX)) == 2
        assert len(daemon.starts(MAXINE)) == 1


def test_a_state_json_that_cannot_be_written_is_reported_and_stops_nothing(
    daemon: Daemon, pids: dict[str, int]
) -> None:
    file = daemon.settings.daemon_dir / "state.json"
    kept = file.read_bytes()
    file.unlink()
    file.mkdir()
    (file / "in-the-way").touch()

    eventually(lambda: "state.json" in said_errors(daemon), deadline=DEADLINE)
    assert_serves_on(daemon, pids)
    shutil.rmtree(file)
    file.write_bytes(kept)

    beats_on(daemon)
    assert load_state(daemon.root).heartbeat_count > 0


def said_errors(daemon: Daemon) -> str:
    return "\n".join(line for line in daemon.settings.log_file.read_text().splitlines() if '"ERROR"' in line)


def test_a_handoff_that_cannot_be_written_delays_the_kill(daemon: Daemon, pids: dict[str, int]) -> None:
    in_the_way = daemon.settings.handoff_dir
    in_the_way.write_text("a file where a folder should be")

    ident = daemon.ask("cycle", handoff="next: merge")
    eventually(lambda: "handoff" in daemon.detail(ident), deadline=DEADLINE)
    assert alive(daemon) == pids
    in_the_way.unlink()

    assert daemon.outcome(ident) == "done"
    eventually(lambda: daemon.work("handoff").read_text() == "next: merge")
    assert len(daemon.starts()) == 2
