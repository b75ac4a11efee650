"""`gastown-mail up`: the whole daemon, and what it lives through."""

import json
import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest

from tests.acceptance.daemons import DEADLINE, TOWN, Place, Process, a_place
from tests.integration.stage import DEAF_RECORDER, MAX, MAXINE, RECORDER, gone, identity
from tests.waiting import eventually

KINDS = ("clerk", "lifecycle-1", "lifecycle-2", "heartbeat", "scheduler")

pytestmark = pytest.mark.timeout(300)


def rq_info(place: Place) -> str:
    """What `rq info` says of the town's Redis."""
    program = sys.executable.rpartition("/")[0] + "/rq"
    done = subprocess.run(
        [program, "info", "--url", place.url], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.stdout + done.stderr


def test_up_serves_the_town_and_others_can_see_it(place: Place) -> None:
    up = place.up()
    first = place.run(MAX)

    restart = place.ask(MAX, "restart")
    place.done(restart)

    assert gone(first.pid)
    assert place.living(MAX).pid != first.pid
    name, host = place.settings.town_name, place.settings.host
    info = eventually(lambda: said if (said := rq_info(place)).count(f"{name}-") >= 5 else "")
    for queue in ("lifecycle", "heartbeat"):
        assert f"gastown-{name}-{host}-{queue}" in info
    for worker in ("lifecycle-1", "lifecycle-2", "heartbeat"):
        assert f"{name}-{worker}-" in info
    assert (place.root / "daemon" / "daemon.pid").read_text().strip() == str(up.pid)
    assert eventually(lambda: place.state().heartbeat_count >= 2, deadline=DEADLINE)


def test_a_second_up_leaves_the_first_one_alone(place: Place) -> None:
    first = place.up()

    second = place.command("up")

    assert second.returncode == 4
    assert str(first.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert first.popen.poll() is None
    assert (place.root / "daemon" / "daemon.pid").read_text().strip() == str(first.pid)
    assert place.state().pid == first.pid


def test_after_sigkill_the_town_is_free_and_the_agents_live(place: Place) -> None:
    first = place.up()
    session = place.run(MAX)
    children = first.children()
    assert len(children) >= len(KINDS)

    first.stop(signal.SIGKILL)

    _, left = psutil.wait_procs(children, timeout=DEADLINE)
    assert not left, "the children end with their parent"
    assert identity(place.living(MAX)) == identity(session)
    assert place.state().running, "a killed daemon cannot record its end"
    assert place.command("status").returncode == 4
    waits = place.ask(MAX, "restart")
    place.up()
    place.done(waits)
    assert gone(session.pid)


def test_whichever_child_is_killed_comes_back_and_the_town_is_served(place: Place) -> None:
    up = place.up()
    session = place.run(MAX)

    for kind in KINDS:
        victim, count = place.children()[kind], place.state().heartbeat_count
        psutil.Process(victim).kill()

        place.done(place.ask(MAX, "restart"))
        eventually(partial(has_successor, place, kind, victim), deadline=DEADLINE)
        eventually(partial(beats_on, place, count), deadline=DEADLINE)

        assert gone(session.pid)
        session = place.living(MAX)
    assert up.popen.poll() is None


def has_successor(place: Place, kind: str, victim: int) -> bool:
    return place.children().get(kind, victim) != victim


def beats_on(place: Place, count: int) -> bool:
    return place.state().heartbeat_count > count


def test_sigterm_ends_the_daemon_and_the_next_one_finds_the_sessions(place: Place) -> None:
    first = place.up()
    session = place.run(MAX)

    code = first.stop(signal.SIGTERM)

    assert code == 0, first.words()
    state = place.state()
    assert not state.running
    assert state.pid == first.pid
    assert identity(place.living(MAX)) == identity(session)
    assert not place.serves_redis()
    assert not (place.root / "daemon" / "daemon.pid").exists()
    assert place.command("status").returncode == 3

    place.up()
    count = place.state().heartbeat_count
    eventually(partial(beats_on, place, count), deadline=DEADLINE)
    assert identity(place.living(MAX)) == identity(session)
    [row] = [row for row in place.document("agents") if row["agent"] == MAX]
    assert (row["observed"], row["desired"], row["restarts"]) == ("alive", "running", 1)


def test_sigterm_in_the_middle_of_a_long_act_ends_in_time_and_the_act_is_gone_on_with() -> None:
    toml = TOWN.replace(RECORDER, DEAF_RECORDER).replace("stop_grace = 2", "stop_grace = 13")
    with a_place(toml) as place:
        first = place.up()
        session = place.run(MAX)
        restart = place.ask(MAX, "restart")
        eventually(lambda: place.status(restart) == "carrying", deadline=DEADLINE)

        code = first.stop(signal.SIGTERM)

        assert code == 0, first.words()
        assert not place.state().running
        place.up()
        place.done(restart, deadline=2 * DEADLINE)
        assert gone(session.pid)
        assert place.living(MAX).pid != session.pid


def test_while_one_agent_is_slow_to_stop_another_is_served_at_once() -> None:
    slow = f"[agents.\"{MAX}\"]\nstop_grace = 60\ncommand = '''{DEAF_RECORDER}'''"
    with a_place(TOWN.replace(f'[agents."{MAX}"]', slow)) as place:
        place.up()
        place.run(MAX)
        other = place.run(MAXINE)
        endless = place.ask(MAX, "shutdown")
        eventually(lambda: place.status(endless) == "carrying", deadline=DEADLINE)

        place.done(place.ask(MAXINE, "restart"), deadline=45)

        assert place.status(endless) == "carrying", "else nothing was shown"
        assert gone(other.pid)


def test_while_more_agents_are_slow_to_stop_than_there_are_workers_others_are_served() -> None:
    names = [f"gastown/crew/slow{number}" for number in range(5)]
    slow = "".join(f"[agents.\"{a}\"]\nstop_grace = 60\ncommand = '''{DEAF_RECORDER}'''\n" for a in names)
    with a_place(TOWN + slow) as place:
        assert place.settings.daemon.workers < len(names)
        place.up()
        other = place.run(MAXINE)
        for name in names:
            place.run(name)
        endless = [place.ask(name, "shutdown") for name in names]
        eventually(lambda: {place.status(one) for one in endless} == {"carrying"}, deadline=DEADLINE)

        place.done(place.ask(MAXINE, "restart"), deadline=45)

        assert {place.status(one) for one in endless} == {"carrying"}, "else nothing was shown"
        assert gone(other.pid)


def test_a_town_toml_that_breaks_stops_nobody_not_even_who_is_started_anew(place: Place) -> None:
    place.up()
    place.run(MAX)
    (place.root / "town.toml").write_text("this is no toml")
    for pid in place.children().values():
        psutil.Process(pid).kill()
    eventually(lambda: len(place.children()) == len(KINDS), deadline=DEADLINE)

    place.done(place.ask(MAX, "restart"))

    beaten = place.state().heartbeat_count
    assert eventually(lambda: place.state().heartbeat_count > beaten, deadline=DEADLINE)


def test_a_stale_pid_file_blocks_nobody_and_is_never_believed(place: Place) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        folder = place.root / "daemon"
        folder.mkdir(exist_ok=True)
        for text in ("", "garbage", "1", "999999999999", str(bystander.pid)):
            for name in ("daemon.pid", "daemon.lock"):
                (folder / name).write_text(text)

            stopped = place.command("stop")

            assert (stopped.returncode, stopped.stdout) == (0, "no daemon is running\n")
        up = place.up()
        assert place.command("stop").returncode == 0
        assert up.popen.wait(DEADLINE) == 0
        assert bystander.poll() is None
        bystander.kill()


def ends(process: Process) -> tuple[int, str]:
    return process.popen.wait(DEADLINE), process.words()


def test_what_happens_is_shown_as_it_happens(place: Place) -> None:
    up = place.up()
    place.run(MAX)
    ident = place.ask(MAX, "shutdown")
    place.done(ident)

    eventually(lambda: ident in up.words(), deadline=DEADLINE)

    up.stop(signal.SIGINT)
    assert ends(up)[0] == 0
    assert "Traceback" not in up.words()
    log = [json.loads(line) for line in place.settings.log_file.read_text().splitlines()]
    assert any(line.get("request_id") == ident and line.get("outcome") == "done" for line in log)
