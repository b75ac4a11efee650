"""`gastown-mail up`: the whole daemon, and what it survives."""

import json
import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest

from tests.support.agents import DEAF_RECORDER, MAX, MAXINE, RECORDER, TOWN
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import Process, gone, lives
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

KINDS = ("clerk", "lifecycle-1", "lifecycle-2", "heartbeat", "scheduler")

pytestmark = pytest.mark.timeout(300)


def rq_info(daemon: Daemon) -> str:
    """Return the output of `rq info` about the town's Redis."""
    program = sys.executable.rpartition("/")[0] + "/rq"
    words = [program, "info", "--url", daemon.town.redis_url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.stdout + done.stderr


def test_up_serves_the_town_and_others_can_see_it(daemon: Daemon) -> None:
    up = daemon.up()
    first = daemon.run(MAX)

    restart = daemon.ask("restart")
    daemon.done(restart)

    assert gone(first.pid)
    assert daemon.living(MAX).pid != first.pid
    name, host = daemon.settings.town_name, daemon.settings.host
    info = eventually(lambda: said if (said := rq_info(daemon)).count(f"{name}-") >= 5 else "")
    for queue in ("lifecycle", "heartbeat"):
        assert f"gastown-{name}-{host}-{queue}" in info
    for worker in ("lifecycle-1", "lifecycle-2", "heartbeat"):
        assert f"{name}-{worker}-" in info
    assert (daemon.root / "daemon" / "daemon.pid").read_text().strip() == str(up.pid)
    assert eventually(lambda: daemon.state().heartbeat_count >= 2, deadline=DEADLINE)


def test_a_second_up_leaves_the_first_one_alone(daemon: Daemon) -> None:
    first = daemon.up()

    second = daemon.command("up")

    assert second.returncode == 4
    assert str(first.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert not first.has_ended()
    assert (daemon.root / "daemon" / "daemon.pid").read_text().strip() == str(first.pid)
    assert daemon.state().pid == first.pid


def test_after_sigkill_the_town_is_free_and_the_agents_live(daemon: Daemon) -> None:
    first = daemon.up()
    session = daemon.run(MAX)
    children = first.children()
    assert len(children) >= len(KINDS)

    first.stop(signal.SIGKILL)

    _, left = psutil.wait_procs(children, timeout=DEADLINE)
    assert not left, "the children end with their parent"
    assert identity(daemon.living(MAX)) == identity(session)
    assert daemon.state().running, "a killed daemon cannot record its end"
    assert daemon.command("status").returncode == 4
    waits = daemon.ask("restart")
    daemon.up()
    daemon.done(waits)
    assert gone(session.pid)


def test_any_killed_child_is_restarted_and_the_town_is_served(daemon: Daemon) -> None:
    up = daemon.up()
    session = daemon.run(MAX)

    for kind in KINDS:
        victim, count = daemon.children()[kind], daemon.state().heartbeat_count
        psutil.Process(victim).kill()

        daemon.done(daemon.ask("restart"))
        eventually(partial(has_successor, daemon, kind, victim), deadline=DEADLINE)
        eventually(partial(beats_on, daemon, count), deadline=DEADLINE)

        assert gone(session.pid)
        session = daemon.living(MAX)
    assert not up.has_ended()


def has_successor(daemon: Daemon, kind: str, victim: int) -> bool:
    return daemon.children().get(kind, victim) != victim


def beats_on(daemon: Daemon, count: int) -> bool:
    return daemon.state().heartbeat_count > count


def test_sigterm_ends_the_daemon_and_the_next_one_finds_the_sessions(daemon: Daemon) -> None:
    first = daemon.up()
    session = daemon.run(MAX)

    code = first.stop(signal.SIGTERM)

    assert code == 0, first.words()
    state = daemon.state()
    assert not state.running
    assert state.pid == first.pid
    assert identity(daemon.living(MAX)) == identity(session)
    assert not daemon.serves_redis()
    assert not (daemon.root / "daemon" / "daemon.pid").exists()
    assert daemon.command("status").returncode == 3

    daemon.up()
    count = daemon.state().heartbeat_count
    eventually(partial(beats_on, daemon, count), deadline=DEADLINE)
    assert identity(daemon.living(MAX)) == identity(session)
    [row] = [row for row in daemon.document("agents") if row["agent"] == MAX]
    assert (row["observed"], row["desired"], row["restarts"]) == ("alive", "running", 1)


def test_a_stop_ends_the_tmux_server_unless_a_program_lives_on_it(daemon: Daemon) -> None:
    daemon.up()
    server = psutil.Process(daemon.run(MAX).server)
    assert daemon.stop() == 0
    kept = lives(server)
    daemon.up()
    done = daemon.command("send", "shutdown", "--to", MAX, "--wait", "30")

    assert daemon.stop() == 0

    assert (kept, done.returncode) == (True, 0), done.stderr
    eventually(lambda: not lives(server), deadline=DEADLINE)
    daemon.up()
    daemon.run(MAX)


def test_sigterm_during_a_long_job_ends_in_time_and_the_job_is_resumed() -> None:
    toml = TOWN.replace(RECORDER, DEAF_RECORDER).replace("stop_grace = 2", "stop_grace = 13")
    with a_daemon(toml) as daemon:
        first = daemon.up()
        session = daemon.run(MAX)
        restart = daemon.ask("restart")
        eventually(lambda: daemon.status(restart) == "carrying", deadline=DEADLINE)

        code = first.stop(signal.SIGTERM)

        assert code == 0, first.words()
        assert not daemon.state().running
        daemon.up()
        daemon.done(restart, deadline=2 * DEADLINE)
        assert gone(session.pid)
        assert daemon.living(MAX).pid != session.pid


def test_while_one_agent_is_slow_to_stop_another_is_served_at_once() -> None:
    slow = f"[agents.\"{MAX}\"]\nstop_grace = 60\ncommand = '''{DEAF_RECORDER}'''"
    with a_daemon(TOWN.replace(f'[agents."{MAX}"]', slow)) as daemon:
        daemon.up()
        daemon.run(MAX)
        other = daemon.run(MAXINE)
        endless = daemon.ask("shutdown")
        eventually(lambda: daemon.status(endless) == "carrying", deadline=DEADLINE)

        daemon.done(daemon.ask("restart", MAXINE), deadline=45)

        assert daemon.status(endless) == "carrying", "otherwise this test shows nothing"
        assert gone(other.pid)


def test_while_more_agents_are_slow_to_stop_than_there_are_workers_others_are_served() -> None:
    names = [f"gastown/crew/slow{number}" for number in range(5)]
    slow = "".join(f"[agents.\"{a}\"]\nstop_grace = 60\ncommand = '''{DEAF_RECORDER}'''\n" for a in names)
    with a_daemon(TOWN + slow) as daemon:
        assert daemon.settings.daemon.workers < len(names)
        daemon.up()
        other = daemon.run(MAXINE)
        for name in names:
            daemon.run(name)
        endless = [daemon.ask("shutdown", name) for name in names]
        eventually(lambda: {daemon.status(one) for one in endless} == {"carrying"}, deadline=DEADLINE)

        daemon.done(daemon.ask("restart", MAXINE), deadline=45)

        assert {daemon.status(one) for one in endless} == {"carrying"}, "otherwise this test shows nothing"
        assert gone(other.pid)


def test_a_broken_town_toml_stops_no_process_not_even_a_restarted_one(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    (daemon.root / "town.toml").write_text("this is no toml")
    for pid in daemon.children().values():
        psutil.Process(pid).kill()
    eventually(lambda: len(daemon.children()) == len(KINDS), deadline=DEADLINE)

    daemon.done(daemon.ask("restart"))

    beaten = daemon.state().heartbeat_count
    assert eventually(lambda: daemon.state().heartbeat_count > beaten, deadline=DEADLINE)


def test_a_stale_pid_file_blocks_nothing_and_is_never_trusted(daemon: Daemon) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        folder = daemon.root / "daemon"
        folder.mkdir(exist_ok=True)
        for text in ("", "garbage", "1", "999999999999", str(bystander.pid)):
            for name in ("daemon.pid", "daemon.lock"):
                (folder / name).write_text(text)

            stopped = daemon.command("stop")

            assert (stopped.returncode, stopped.stdout) == (0, "no daemon is running\n")
        up = daemon.up()
        assert daemon.command("stop").returncode == 0
        assert up.popen.wait(DEADLINE) == 0
        assert bystander.poll() is None
        bystander.kill()


def ends(process: Process) -> tuple[int, str]:
    return process.popen.wait(DEADLINE), process.words()


def test_up_shows_events_as_they_happen(daemon: Daemon) -> None:
    up = daemon.up()
    daemon.run(MAX)
    ident = daemon.ask("shutdown")
    daemon.done(ident)

    eventually(lambda: ident in up.words(), deadline=DEADLINE)

    up.stop(signal.SIGINT)
    assert ends(up)[0] == 0
    assert "Traceback" not in up.words()
    log = [json.loads(line) for line in daemon.settings.log_file.read_text().splitlines()]
    assert any(line.get("request_id") == ident and line.get("outcome") == "done" for line in log)
