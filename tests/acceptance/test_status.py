"""`status` and `agents` tell the truth about a real daemon, whatever of it is frozen, killed or broken."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from gastown_mail.contracts.go_formats import format_time
from gastown_mail.plumbing.embedded import server_pid
from gastown_mail.status.model import Report
from gastown_mail.town.backoff import StartHistory
from tests.acceptance.daemons import DEADLINE, TOWN, Place, a_place
from tests.integration.stage import DEACON, MAX, MAXINE, WITNESS
from tests.parts import family
from tests.towns import element
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

A_FEW_SECONDS = 20.0
"""More than the deadlines of all parts together, on a busy machine; far less than a frozen part takes."""


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Have these processes stand still inside the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def look(place: Place) -> tuple[int, Report, str]:
    """What `status` says now, as code, as document and as words; the document has exactly its shape."""
    words = place.command("status")
    done = place.command("status", "--json")
    assert "Traceback" not in words.stderr + done.stderr
    return done.returncode, Report.model_validate_json(done.stdout, strict=False), words.stdout


def served(place: Place) -> Report:
    """The report of a town that is served, as soon as it is."""
    return eventually(
        lambda: report if (report := look(place)[1]).verdict == "running" else None,
        deadline=DEADLINE,
        step=0.2,
    )  # type: ignore[return-value]


def observed(report: Report) -> dict[str, str]:
    return {row.agent: row.observed for row in report.agents or ()}


def redis_pid(place: Place) -> int:
    pid = server_pid(place.settings.redis_dir)
    assert pid
    return pid


def tmux_pid(place: Place) -> int:
    return place.town.sessions.tmux.server_pid()


def test_a_served_town_runs_and_every_part_is_told(place: Place) -> None:
    up = place.up()
    place.run(MAX)
    eventually(lambda: place.state().heartbeat_count > 0, deadline=DEADLINE)

    report = served(place)

    assert (report.town, report.version, report.troubles, report.unknown) == (
        place.settings.town_name,
        1,
        [],
        {},
    )
    assert (report.daemon.pid, report.daemon.held, report.daemon.state_from) == (up.pid, True, "redis")
    beat, [host], mail = report.heartbeat, report.hosts or [], report.mail
    assert beat
    assert beat.count
    assert None not in (beat.age, beat.due_in)
    assert (host.host, host.lifecycle, host.expected, host.heartbeat) == (place.settings.host, 2, 2, 1)
    assert mail
    assert mail.clerk
    assert observed(report) == {MAX: "alive", MAXINE: "none", WITNESS: "none"}
    code, _, words = look(place)
    assert code == 0
    assert words.splitlines()[0] == f"{place.settings.town_name}: running"


def test_a_stopped_town_is_stopped_and_its_agents_are_shown(place: Place) -> None:
    assert place.command("start").returncode == 0
    place.run(MAX)
    assert place.command("stop").returncode == 0

    code, report, words = look(place)

    assert (code, report.verdict, report.troubles) == (3, "stopped", [])
    assert words.splitlines()[0] == f"{place.settings.town_name}: stopped"
    assert observed(report)[MAX] == "alive"
    assert report.daemon.pid is None


def test_a_worker_that_was_killed_or_stands_still_is_not_counted(place: Place) -> None:
    up = place.up()
    served(place)
    victim = place.children()["lifecycle-1"]

    with frozen(victim):
        code, report, words = look(place)
        assert (code, report.hosts and report.hosts[0].lifecycle) == (4, 1)
    with frozen(up.pid):
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: psutil.Process(victim).status() == psutil.STATUS_ZOMBIE, deadline=DEADLINE)
        code, _, words = look(place)

    assert code == 4
    assert words.splitlines()[0].endswith(
        f": degraded: the daemon is suspended; 1 of 2 lifecycle workers on {place.settings.host}"
    )
    served(place)


def test_a_clerk_that_stands_still_is_missed(place: Place) -> None:
    place.up()
    served(place)

    with frozen(place.children()["clerk"]):
        _, report, _ = look(place)

    assert [trouble.reason for trouble in report.troubles] == ["no clerk reads the inbox"]


@pytest.fixture
def unhurried() -> Iterator[Place]:
    """A town whose heartbeat is not late while a part of it is frozen."""
    with a_place(TOWN.replace("heartbeat_interval = 2", "heartbeat_interval = 60")) as made:
        yield made


def test_a_frozen_tmux_makes_the_agents_unknown_and_nothing_else(unhurried: Place) -> None:
    place = unhurried
    place.up()
    place.run(MAX)
    served(place)

    with frozen(tmux_pid(place)):
        began = time.monotonic()
        code, report, words = look(place)
        assert time.monotonic() - began < A_FEW_SECONDS
        listed = place.command("agents")

    assert (code, list(report.unknown)) == (4, ["tmux"])
    assert words.splitlines()[0].endswith(": degraded: tmux does not answer")
    assert set(observed(report).values()) == {"unknown"}
    assert all(row.age is None and row.idle is None for row in report.agents or ())
    assert report.mail
    assert report.hosts
    assert (listed.returncode, "unknown" in listed.stdout, "tmux did not answer" in listed.stderr) == (
        1,
        True,
        True,
    )


def test_a_frozen_redis_leaves_what_tmux_and_the_disk_tell(unhurried: Place) -> None:
    place = unhurried
    up = place.up()
    place.run(MAX)
    eventually(lambda: place.state().heartbeat_count > 0, deadline=DEADLINE)

    with frozen(redis_pid(place)):
        code, report, words = look(place)

    assert (code, list(report.unknown)) == (4, ["redis"])
    assert words.splitlines()[0].endswith(": degraded: Redis does not answer")
    assert "by state.json, written" in words
    assert (report.daemon.pid, report.daemon.state_from) == (up.pid, "state.json")
    assert report.daemon.state_age is not None
    assert (report.mail, report.hosts) == (None, None)
    assert observed(report) == {MAX: "alive", MAXINE: "none", WITNESS: "none"}
    assert {row.desired for row in report.agents or ()} == {"unknown"}


def test_when_both_are_frozen_it_comes_back_all_the_same(place: Place) -> None:
    place.up()
    place.run(MAX)

    with frozen(redis_pid(place), tmux_pid(place)):
        began = time.monotonic()
        code, report, _ = look(place)
        assert time.monotonic() - began < A_FEW_SECONDS

    assert (code, sorted(report.unknown)) == (4, ["redis", "tmux"])
    assert report.heartbeat


def test_a_town_toml_that_was_broken_while_the_daemon_runs_is_named(place: Place) -> None:
    up = place.up()
    (place.root / "town.toml").write_text("[daemon]\nworkers = 2\nhartbeat_interval = 5\n")

    code, report, words = look(place)

    assert (code, report.town, list(report.unknown)) == (4, None, ["settings"])
    assert "town.toml, line 3" in words
    assert (report.daemon.pid, report.agents) == (up.pid, None)


def test_a_daemon_that_was_killed_is_missed_and_its_last_state_is_not_taken_for_another(place: Place) -> None:
    up = place.up()
    for process in family(psutil.Process(up.pid)):
        process.kill()
    eventually(lambda: place.holder() is None, deadline=DEADLINE)

    code, report, words = look(place)

    assert code == 4
    assert "no daemon holds the town" in words.splitlines()[0]
    assert (report.daemon.held, report.daemon.pid, report.daemon.since) == (False, None, None)
    assert "none, although its state says that it is running" in words


@pytest.fixture
def with_deacon() -> Iterator[Place]:
    """A town with a deacon, which must run."""
    with a_place(TOWN + '[agents."deacon/"]\n') as made:
        yield made


def test_an_agent_in_quarantine_is_down_and_is_said_until_when(with_deacon: Place) -> None:
    place = with_deacon
    place.up()
    eventually(lambda: place.town.agents.read(DEACON).start_history.starts, deadline=DEADLINE)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    place.town.agents.write_start_history(
        DEACON, StartHistory(quarantined_until=later, updated_at=datetime.now(UTC))
    )
    place.town.sessions.end(place.living(DEACON), grace=2.0)

    code, report, words = look(place)

    [deacon] = [row for row in report.agents or () if row.agent == DEACON]
    assert (code, deacon.observed, deacon.waits) == (4, "none", "quarantine")
    assert deacon.waits_until == later
    assert words.splitlines()[0].endswith(": degraded: deacon/ must run and does not")
    assert "quarantine until" in words


def test_the_age_of_the_oldest_that_waits_is_told(place: Place) -> None:
    place.up()
    served(place)
    asked = datetime.now(UTC) - timedelta(seconds=90)

    with frozen(place.children()["clerk"]):
        place.redis.rpush(place.town.keys.inbox, b"\xff garbage", element(timestamp=format_time(asked)))
        mail = look(place)[1].mail

    assert mail
    assert mail.inbox_oldest is not None
    assert mail.inbox + mail.taken == 2
    assert 90 <= mail.inbox_oldest < 90 + DEADLINE


def test_agents_are_listed_by_what_is_observed_and_by_name(place: Place) -> None:
    place.up()
    place.run(MAX)

    alive = place.document("agents", "--status", "alive")
    named = place.document("agents", "--agent", "gastown-crew-maxine")

    assert [row["agent"] for row in alive] == [MAX]
    assert [(row["agent"], row["observed"]) for row in named] == [(MAXINE, "none")]
    assert place.command("agents", "--status", "ended").stdout == "no such agents\n"


def on_a_terminal(
    place: Place, *words: str, until: str, ending: signal.Signals = signal.SIGINT,
    size: tuple[int, int] = (24, 80), **environ: str,
) -> tuple[str, int]:  # fmt: skip
    """What the command shows on a terminal of this size until it has shown `until` twice and gets `ending`.

    Also returns its exit code.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    process = subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**place.environ, "TERM": "xterm-256color", **environ}, cwd=place.root, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, asked = b"", False
    try:
        while chunk := _read(ours):
            shown += chunk
            if shown.count(until.encode()) >= 2 and not asked:
                process.send_signal(ending)
                asked = True
        return shown.decode(errors="replace"), process.wait(DEADLINE)
    finally:
        process.kill()
        process.wait(DEADLINE)
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("plain", [False, True])
def test_watch_shows_it_again_and_again_until_ctrl_c(place: Place, plain: bool) -> None:
    environ: dict[str, Any] = {"NO_COLOR": "1"} if plain else {}

    shown, code = on_a_terminal(place, "status", "--watch", "--interval", "0.2", until="stopped", **environ)

    assert code == 130
    assert "Traceback" not in shown
    assert shown.index("\x1b[?1049h") < shown.index("\x1b[?1049l"), "the terminal is given back as it was"
    assert ("\x1b[33m\x1b[1m" in shown) is not plain


def test_watch_fits_the_terminal_and_gives_it_back_on_sigterm(place: Place) -> None:
    shown, code = on_a_terminal(
        place, "status", "--watch", "--interval", "0.2", until="stopped", ending=signal.SIGTERM,
        size=(6, 40), NO_COLOR="1",
    )  # fmt: skip

    assert code == 128 + signal.SIGTERM
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.endswith("\x1b[?25h\x1b[?1049l")
    for frame in shown.removesuffix("\x1b[?25h\x1b[?1049l").split("\x1b[H\x1b[J")[1:]:
        lines = frame.split("\r\n")
        assert (len(lines), lines[-1]) == (6, "…")
        assert max(map(len, lines)) <= 40


def test_colours_are_for_terminals_that_want_them(place: Place) -> None:
    shown, code = on_a_terminal(place, "status", until="(never)")
    plain, _ = on_a_terminal(place, "status", until="(never)", NO_COLOR="1")

    assert code == 3
    assert "\x1b[" in shown
    assert "\x1b[" not in plain + place.command("status").stdout


def test_watch_off_a_terminal_prints_one_after_another_and_ends_at_ctrl_c(place: Place) -> None:
    process = place.python("-m", "gastown_mail", "status", "--watch", "--interval", "0.1")
    eventually(lambda: process.words().count(": stopped") >= 2, deadline=DEADLINE)

    assert process.stop(signal.SIGINT) == 130
    assert "\x1b" not in process.words()
    assert "Traceback" not in process.words()


def test_watch_and_json_exclude_each_other(place: Place) -> None:
    done = place.command("status", "--watch", "--json")

    assert done.returncode == 2
    assert "not both" in done.stderr
