"""One agent, one place: a session that is not where a daemon looks is not taken for dead, and not doubled."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gastown_mail.contracts.settings import load_settings
from gastown_mail.sessions.session import Session
from tests.support.agents import MAX, MAXINE, UNPOKED, a_crew
from tests.support.daemon import Daemon, a_daemon, a_running_daemon
from tests.support.processes import gone
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

KEEP = a_crew(daemon=UNPOKED).replace("[roles.crew]", "[roles.crew]\nkeep_running = true")


@pytest.fixture
def town() -> Iterator[Daemon]:
    """A town with two living agents that must keep running."""
    with a_running_daemon(KEEP) as daemon:
        for address in (MAX, MAXINE):
            eventually(lambda address=address: daemon.started(address), deadline=DEADLINE)  # type: ignore[misc]
        yield daemon


@pytest.fixture
def folders(town: Daemon) -> Path:
    """A folder for copies of the town."""
    folder = town.root.parent / "elsewhere"
    folder.mkdir()
    return folder


def in_folder(root: Path) -> Daemon:
    """The town in this folder, as a daemon there would find it."""
    return Daemon(load_settings(root, environ={}), quiet=True)


def sees_two_sweeps(daemon: Daemon) -> None:
    """Wait until the daemon has looked at its agents twice."""
    count = daemon.state().heartbeat_count
    eventually(lambda: daemon.state().heartbeat_count >= count + 2, deadline=DEADLINE)


def sessions_of(daemon: Daemon, address: str = MAX) -> list[Session]:
    return [one for one in daemon.town.sessions.snapshot().values() if one.agent == address]


def copied(town: Daemon, folder: Path) -> Daemon:
    subprocess.run(["cp", "-a", str(town.root), str(folder / "copy")], check=False, capture_output=True)
    return in_folder(folder / "copy")


def test_a_copy_is_refused_and_the_originals_agents_live_on(town: Daemon, folders: Path) -> None:
    before = identity(town.living())
    copy = copied(town, folders)

    refused = copy.command("start")

    assert refused.returncode == 2
    assert f"is a copy of {town.root}" in refused.stderr
    assert "gastown-mail move-town" in refused.stderr
    assert "gastown-mail init --new-identity" in refused.stderr
    sees_two_sweeps(town)
    assert identity(town.living()) == before
    assert town.stop() == 0
    assert copy.command("start").returncode == 2
    for script in ("worker.py", "scheduler.py"):
        process = copy.script(script, environ={"GASTOWN_TOWN": str(copy.root)})
        assert eventually(process.has_ended, deadline=DEADLINE)
        assert "is a copy of" in process.words()
    assert identity(town.living()) == before


def test_a_copy_with_an_identity_of_its_own_is_another_town(town: Daemon, folders: Path) -> None:
    before = identity(town.living())
    copied(town, folders)

    renewed = town.command("init", "--new-identity", str(folders / "copy"))

    assert renewed.returncode == 0, renewed.stderr
    copy = in_folder(folders / "copy")
    for name in ("starts", "env", "prompt"):
        copy.work(name).unlink(missing_ok=True)
    try:
        copy.up()
        eventually(lambda: copy.started(MAX), deadline=DEADLINE)
        sees_two_sweeps(copy)
        sees_two_sweeps(town)
        assert identity(town.living()) == before
        assert copy.living().incarnation != before[2]
        assert len(sessions_of(copy)) == len(sessions_of(town)) == 1
    finally:
        copy.stop()
        copy.close()


def test_a_copy_can_take_over_and_the_original_gives_its_agents_up(town: Daemon, folders: Path) -> None:
    before = identity(town.living())
    assert town.stop() == 0
    copy = copied(town, folders)

    taken = copy.command("move-town")

    assert taken.returncode == 0, taken.stderr
    assert f"{town.root} has given its agents up" in taken.stdout
    copy = in_folder(folders / "copy")
    try:
        copy.up()
        sees_two_sweeps(copy)
        assert identity(copy.living()) == before
        refused = town.command("start")
        assert refused.returncode == 2
        assert f"has given its agents to {copy.root}" in refused.stderr
        assert copy.outcome(copy.ask("restart", "operator", to=MAX)) == "done"
        assert len(sessions_of(copy)) == 1
    finally:
        copy.stop()
        copy.close()


def test_a_moved_and_renamed_town_finds_its_agents(town: Daemon, folders: Path) -> None:
    before, name = identity(town.living()), town.settings.town_name
    assert town.stop() == 0
    shutil.move(town.root, folders / "new-name")

    there = in_folder(folders / "new-name")
    try:
        assert there.settings.town_name == name
        there.up()
        sees_two_sweeps(there)
        assert identity(there.living()) == before
        assert there.outcome(there.ask("cycle", "operator", to=MAX)) == "done"
        assert gone(before[1])
        assert len(sessions_of(there)) == 1
    finally:
        there.stop()
        there.close()


def test_another_tmux_tmpdir_at_a_restart_changes_nothing(town: Daemon, folders: Path) -> None:
    before = identity(town.living())
    assert town.stop() == 0

    town.environ["TMUX_TMPDIR"] = str(folders)
    town.up()

    sees_two_sweeps(town)
    assert identity(town.living()) == before
    assert town.outcome(town.ask("restart", "operator", to=MAX)) == "done"
    assert len(sessions_of(town)) == 1
    assert list(folders.iterdir()) == []


def test_a_renamed_session_is_still_the_agents(town: Daemon) -> None:
    session = town.living()
    town.town.sessions.tmux.run("rename-session", "-t", session.id, "my-own-name")

    sees_two_sweeps(town)

    assert identity(town.living()) == identity(session)
    assert len(sessions_of(town)) == 1
    assert town.outcome(town.ask("cycle", MAX, incarnation=session.incarnation)) == "done"
    assert gone(session.pid)
    assert [one.name for one in sessions_of(town)] == [town.agent().session]


@pytest.mark.parametrize("action", ["cycle", "shutdown"])
def test_a_pane_in_a_persons_session_is_still_the_agents_and_the_rest_is_the_persons(
    town: Daemon, action: str
) -> None:
    tmux, session = town.town.sessions.tmux, town.living()
    tmux.run("new-session", "-d", "-s", "person", "exec sleep 100000")
    persons = int(tmux.run("display-message", "-p", "-t", "=person:", "#{pane_pid}"))
    tmux.run("join-pane", "-d", "-s", session.pane, "-t", "=person:")

    sees_two_sweeps(town)

    found = town.living()
    assert (found.pid, found.incarnation, found.name) == (session.pid, session.incarnation, "person")
    assert town.outcome(town.ask(action, MAX, incarnation=session.incarnation)) == "done"
    assert gone(session.pid)
    assert not gone(persons)
    assert tmux.run("list-panes", "-t", "=person:", "-F", "#{pane_pid}").split() == [str(persons)]
    assert [one.name for one in sessions_of(town)] == [town.agent().session] * (action == "cycle")


@pytest.mark.parametrize("action", ["cycle", "shutdown"])
def test_a_persons_pane_in_an_agents_session_outlives_it(town: Daemon, action: str) -> None:
    tmux, session = town.town.sessions.tmux, town.living()
    tmux.run("new-session", "-d", "-s", "person", "exec sleep 100000")
    persons = int(tmux.run("display-message", "-p", "-t", "=person:", "#{pane_pid}"))
    tmux.run("join-pane", "-d", "-s", "=person:", "-t", session.pane)

    assert town.outcome(town.ask(action, MAX, incarnation=session.incarnation)) == "done"

    assert gone(session.pid)
    assert not gone(persons)
    assert [one.name for one in sessions_of(town)] == [town.agent().session] * (action == "cycle")


def test_the_second_of_two_towns_of_one_name_is_refused(redis_url: str) -> None:
    toml = f'town_name = "twin"\n{KEEP.replace("[daemon]", f"[daemon]{chr(10)}redis_url = {redis_url!r}")}'
    with a_running_daemon(toml) as first, a_daemon(toml, quiet=True) as second:
        eventually(lambda: first.started(MAX), deadline=DEADLINE)
        before = identity(first.living())

        refused = second.command("start")

        assert refused.returncode == 2
        assert str(first.root) in refused.stderr
        assert first.stop() == 0
        refused = second.command("start")
        assert refused.returncode == 2
        assert "give this one another town_name" in refused.stderr
        assert identity(first.living()) == before
        assert second.session(MAX) is None
