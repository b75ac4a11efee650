"""`status` and `agents` are right about a real daemon, even if parts are frozen, killed or broken."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from gastown_mail.contracts.go_formats import format_time
from gastown_mail.status.model import Report
from gastown_mail.town.backoff import StartHistory
from tests.support.agents import DEACON, MAX, MAXINE, TOWN, WITNESS
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import stopped
from tests.support.town import element
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)

A_FEW_SECONDS = 20.0
"""More than the deadlines of all parts together on a busy machine; far less than a frozen part takes."""


def look(daemon: Daemon) -> tuple[int, Report, str]:
    """Return the exit code, the document and the text of `status`; the document has exactly its shape."""
    words = daemon.command("status")
    done = daemon.command("status", "--json")
    assert "Traceback" not in words.stderr + done.stderr
    return done.returncode, Report.model_validate_json(done.stdout, strict=False), words.stdout


def served(daemon: Daemon) -> Report:
    """Wait until the town is served; return its report."""
    return eventually(
        lambda: report if (report := look(daemon)[1]).verdict == "running" else None,
        deadline=DEADLINE,
        step=0.2,
    )  # type: ignore[return-value]


def observed(report: Report) -> dict[str, str]:
    return {row.agent: row.observed for row in report.agents or ()}


def test_a_served_town_is_running_and_shows_every_part(daemon: Daemon) -> None:
    up = daemon.up()
    daemon.run(MAX)
    eventually(lambda: daemon.state().heartbeat_count > 0, deadline=DEADLINE)

    report = served(daemon)

    assert (report.town, report.version, report.troubles, report.unknown) == (
        daemon.settings.town_name,
        1,
        [],
        {},
    )
    assert (report.daemon.pid, report.daemon.held, report.daemon.state_from) == (up.pid, True, "redis")
    beat, [host], mail = report.heartbeat, report.hosts or [], report.mail
    assert beat
    assert beat.count
    assert None not in (beat.age, beat.due_in)
    assert (host.host, host.lifecycle, host.expected, host.heartbeat) == (daemon.settings.host, 2, 2, 1)
    assert mail
    assert mail.clerk
    assert observed(report) == {MAX: "alive", MAXINE: "none", WITNESS: "none"}
    code, _, words = look(daemon)
    assert code == 0
    assert words.splitlines()[0] == f"{daemon.settings.town_name}: running"


def test_a_stopped_town_is_stopped_and_its_agents_are_shown(daemon: Daemon) -> None:
    assert daemon.command("start").returncode == 0
    daemon.run(MAX)
    assert daemon.command("stop").returncode == 0

    code, report, words = look(daemon)

    assert (code, report.verdict, report.troubles) == (3, "stopped", [])
    assert words.splitlines()[0] == f"{daemon.settings.town_name}: stopped"
    assert observed(report)[MAX] == "alive"
    assert report.daemon.pid is None


def test_a_killed_or_frozen_worker_is_not_counted(daemon: Daemon) -> None:
    up = daemon.up()
    served(daemon)
    victim = daemon.children()["lifecycle-1"]

    with stopped(victim):
        code, report, words = look(daemon)
        assert (code, report.hosts and report.hosts[0].lifecycle) == (4, 1)
    with stopped(up.pid):
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: psutil.Process(victim).status() == psutil.STATUS_ZOMBIE, deadline=DEADLINE)
        code, _, words = look(daemon)

    assert code == 4
    assert words.splitlines()[0].endswith(
        f": degraded: the daemon is suspended; 1 of 2 lifecycle workers on {daemon.settings.host}"
    )
    served(daemon)


def test_a_frozen_clerk_is_missed(daemon: Daemon) -> None:
    daemon.up()
    served(daemon)

    with stopped(daemon.children()["clerk"]):
        _, report, _ = look(daemon)

    assert [trouble.reason for trouble in report.troubles] == ["no clerk reads the inbox"]


@pytest.fixture
def unhurried() -> Iterator[Daemon]:
    """A town whose heartbeat is not late while a part of it is frozen."""
    with a_daemon(TOWN.replace("heartbeat_interval = 2", "heartbeat_interval = 60")) as made:
        yield made


def test_a_frozen_tmux_makes_the_agents_unknown_and_nothing_else(unhurried: Daemon) -> None:
    daemon = unhurried
    daemon.up()
    daemon.run(MAX)
    served(daemon)

    with stopped(daemon.tmux_pid()):
        began = time.monotonic()
        code, report, words = look(daemon)
        assert time.monotonic() - began < A_FEW_SECONDS
        listed = daemon.command("agents")

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


def test_with_a_frozen_redis_tmux_and_the_disk_are_still_shown(unhurried: Daemon) -> None:
    daemon = unhurried
    up = daemon.up()
    daemon.run(MAX)
    eventually(lambda: daemon.state().heartbeat_count > 0, deadline=DEADLINE)

    with stopped(daemon.redis_pid()):
        code, report, words = look(daemon)

    assert (code, list(report.unknown)) == (4, ["redis"])
    assert words.splitlines()[0].endswith(": degraded: Redis does not answer")
    assert "by state.json, written" in words
    assert (report.daemon.pid, report.daemon.state_from) == (up.pid, "state.json")
    assert report.daemon.state_age is not None
    assert (report.mail, report.hosts) == (None, None)
    assert observed(report) == {MAX: "alive", MAXINE: "none", WITNESS: "none"}
    assert {row.desired for row in report.agents or ()} == {"unknown"}


def test_status_returns_even_when_both_are_frozen(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)

    with stopped(daemon.redis_pid(), daemon.tmux_pid()):
        began = time.monotonic()
        code, report, _ = look(daemon)
        assert time.monotonic() - began < A_FEW_SECONDS

    assert (code, sorted(report.unknown)) == (4, ["redis", "tmux"])
    assert report.heartbeat


def test_a_town_toml_that_was_broken_while_the_daemon_runs_is_named(daemon: Daemon) -> None:
    up = daemon.up()
    (daemon.root / "town.toml").write_text("[daemon]\nworkers = 2\nhartbeat_interval = 5\n")

    code, report, words = look(daemon)

    assert (code, report.town, list(report.unknown)) == (4, None, ["settings"])
    assert "town.toml, line 3" in words
    assert (report.daemon.pid, report.agents) == (up.pid, None)


def test_a_killed_daemon_is_missed_and_its_last_state_does_not_count_for_another(
    daemon: Daemon,
) -> None:
    up = daemon.up()
    for process in up.family():
        process.kill()
    eventually(lambda: daemon.holder() is None, deadline=DEADLINE)

    code, report, words = look(daemon)

    assert code == 4
    assert "no daemon holds the town" in words.splitlines()[0]
    assert (report.daemon.held, report.daemon.pid, report.daemon.since) == (False, None, None)
    assert "none, although its state says that it is running" in words


@pytest.fixture
def with_deacon() -> Iterator[Daemon]:
    """A town with a deacon that should run."""
    with a_daemon(TOWN + '[agents."deacon/"]\n') as made:
        yield made


def test_an_agent_in_quarantine_is_down_and_shows_until_when(with_deacon: Daemon) -> None:
    daemon = with_deacon
    daemon.up()
    eventually(lambda: daemon.town.agents.read(DEACON).start_history.starts, deadline=DEADLINE)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    daemon.town.agents.write_start_history(
        DEACON, StartHistory(quarantined_until=later, updated_at=datetime.now(UTC))
    )
    daemon.town.sessions.end(daemon.living(DEACON), grace=2.0)

    code, report, words = look(daemon)

    [deacon] = [row for row in report.agents or () if row.agent == DEACON]
    assert (code, deacon.observed, deacon.waits) == (4, "none", "quarantine")
    assert deacon.waits_until == later
    assert words.splitlines()[0].endswith(": degraded: deacon/ must run and does not")
    assert "quarantine until" in words


def test_the_age_of_the_oldest_waiting_element_is_shown(daemon: Daemon) -> None:
    daemon.up()
    served(daemon)
    asked = datetime.now(UTC) - timedelta(seconds=90)

    with stopped(daemon.children()["clerk"]):
        daemon.redis.rpush(daemon.town.keys.inbox, b"\xff garbage", element(timestamp=format_time(asked)))
        mail = look(daemon)[1].mail

    assert mail
    assert mail.inbox_oldest is not None
    assert mail.inbox + mail.taken == 2
    assert 90 <= mail.inbox_oldest < 90 + DEADLINE


def test_agents_are_listed_by_what_is_observed_and_by_name(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)

    alive = daemon.document("agents", "--status", "alive")
    named = daemon.document("agents", "--agent", "gastown-crew-maxine")
    ready = eventually(lambda: daemon.document("agents", "--status", "ready"), deadline=DEADLINE, step=0.5)

    assert [row["agent"] for row in alive] == [MAX]
    assert [(row["agent"], row["program"]) for row in ready] == [(MAX, "shell")]
    assert [(row["agent"], row["observed"]) for row in named] == [(MAXINE, "none")]
    assert daemon.command("agents", "--status", "ended").stdout == "no such agents\n"


def on_a_terminal(
    daemon: Daemon, *words: str, until: str, ending: signal.Signals = signal.SIGINT,
    size: tuple[int, int] = (24, 80), **environ: str,
) -> tuple[str, int]:  # fmt: skip
    """What the command shows on a terminal of this size until it has shown `until` twice and gets `ending`.

    Also returns its exit code.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    process = subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**daemon.environ, "TERM": "xterm-256color", **environ}, cwd=daemon.root, start_new_session=True,
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
def test_watch_repeats_the_status_until_ctrl_c(daemon: Daemon, plain: bool) -> None:
    environ: dict[str, Any] = {"NO_COLOR": "1"} if plain else {}

    shown, code = on_a_terminal(daemon, "status", "--watch", "--interval", "0.2", until="stopped", **environ)

    assert code == 130
    assert "Traceback" not in shown
    assert shown.index("\x1b[?1049h") < shown.index("\x1b[?1049l"), "the terminal is restored"
    assert ("\x1b[33m\x1b[1m" in shown) is not plain


def test_watch_fits_the_terminal_and_restores_it_on_sigterm(daemon: Daemon) -> None:
    shown, code = on_a_terminal(
        daemon, "status", "--watch", "--interval", "0.2", until="stopped", ending=signal.SIGTERM,
        size=(6, 40), NO_COLOR="1",
    )  # fmt: skip

    assert code == 128 + signal.SIGTERM
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.endswith("\x1b[?25h\x1b[?1049l")
    for frame in shown.removesuffix("\x1b[?25h\x1b[?1049l").split("\x1b[H\x1b[J")[1:]:
        lines = frame.split("\r\n")
        assert (len(lines), lines[-1]) == (6, "…")
        assert max(map(len, lines)) <= 40


def test_colours_are_for_terminals_that_show_them(daemon: Daemon) -> None:
    shown, code = on_a_terminal(daemon, "status", until="(never)")
    plain, _ = on_a_terminal(daemon, "status", until="(never)", NO_COLOR="1")

    assert code == 3
    assert "\x1b[" in shown
    assert "\x1b[" not in plain + daemon.command("status").stdout


def test_watch_without_a_terminal_prints_reports_until_ctrl_c(daemon: Daemon) -> None:
    process = daemon.python("-m", "gastown_mail", "status", "--watch", "--interval", "0.1")
    eventually(lambda: process.words().count(": stopped") >= 2, deadline=DEADLINE)

    assert process.stop(signal.SIGINT) == 130
    assert "\x1b" not in process.words()
    assert "Traceback" not in process.words()


def test_watch_and_json_exclude_each_other(daemon: Daemon) -> None:
    done = daemon.command("status", "--watch", "--json")

    assert done.returncode == 2
    assert "not both" in done.stderr
