"""Pause, resume, run, clear, adopt and send, on the command line of a real daemon."""

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import NO_HISTORY, StartHistory
from tests.support.agents import DEACON, MAX, MAXINE, TOWN, WITNESS
from tests.support.daemon import Daemon, a_daemon
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)

WAIT = ("--wait", str(DEADLINE))


@pytest.fixture
def with_deacon() -> Iterator[Daemon]:
    """A town with a deacon, which is kept running."""
    with a_daemon(TOWN + '[agents."deacon/"]\n') as made:
        yield made


@pytest.fixture
def strict() -> Iterator[Daemon]:
    """A town where agents must prove their identity."""
    with a_daemon(TOWN.replace("[daemon]\n", "[daemon]\nrequire_incarnation = true\n")) as made:
        yield made


def well(daemon: Daemon, *words: str) -> str:
    """The command's stdout; it must succeed."""
    done = daemon.command(*words)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def badly(daemon: Daemon, *words: str, code: int = 1) -> str:
    """The one sentence of a command that fails."""
    done = daemon.command(*words)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("waiting at most")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("gastown-mail: ")
    return said[0]


def restart(daemon: Daemon, address: str, wait: tuple[str, ...] = WAIT) -> tuple[str, ...]:
    """The arguments with which an operator restarts an agent."""
    return ("send", "restart", "--agent", "operator", "--to", address, *wait)


def replaced(daemon: Daemon, session: Session, address: str) -> bool:
    found = daemon.session(address)
    return found is not None and not found.dead and identity(found) != identity(session)


def decision(daemon: Daemon, address: str) -> str:
    """Return what the last heartbeat decided about the agent."""
    return daemon.town.agents.read(address).decision


def test_a_paused_agent_is_left_alone_until_it_is_resumed(daemon: Daemon) -> None:
    daemon.up()
    session = daemon.run(MAX)

    assert (
        well(daemon, "pause", "gastown-crew-max")
        == f"{MAX} is paused; gastown-mail resume gastown-crew-max ends the pause\n"
    )

    assert "is paused" in badly(daemon, *restart(daemon, MAX))
    assert "held: paused" in badly(daemon, "poke", MAX, "hello")
    assert {row["agent"]: row["desired"] for row in daemon.document("agents")}[MAX] == "paused"
    assert identity(daemon.living(MAX)) == identity(session)
    assert well(daemon, "resume", MAX) == f"{MAX} is no longer paused\n"
    assert well(daemon, "poke", MAX, "hello") == f"{MAX}: delivered\n"
    well(daemon, *restart(daemon, MAX))
    assert replaced(daemon, session, MAX)


def test_run_ends_a_pause_and_a_shutdown(daemon: Daemon) -> None:
    daemon.up()
    session = daemon.run(MAX)
    well(daemon, "pause", MAX)

    assert well(daemon, "run", MAX) == f"{MAX}: runs already\n"
    well(daemon, "send", "shutdown", "--agent", "operator", "--to", MAX, *WAIT)
    assert daemon.session(MAX) is None

    assert well(daemon, "run", MAX).startswith(f"{MAX}: started ")
    assert replaced(daemon, session, MAX)


def test_while_the_whole_town_is_paused_requests_wait(daemon: Daemon) -> None:
    daemon.up()
    session = daemon.run(MAX)

    assert (
        well(daemon, "pause", "--all")
        == "the whole town is paused; gastown-mail resume --all ends the pause\n"
    )

    assert "still received" in badly(daemon, *restart(daemon, MAX, ("--wait", "3")))
    assert "the town is paused" in badly(daemon, "run", WITNESS)
    assert "held: paused" in badly(daemon, "poke", MAX, "hello")
    assert identity(daemon.living(MAX)) == identity(session)
    assert daemon.session(WITNESS) is None
    assert well(daemon, "resume", "--all") == "the whole town is no longer paused\n"
    eventually(lambda: replaced(daemon, session, MAX), deadline=DEADLINE)
    daemon.run(WITNESS)


def test_a_pause_outlives_the_daemon(daemon: Daemon) -> None:
    daemon.up()
    session = daemon.run(MAX)
    well(daemon, "pause", MAX)

    well(daemon, "stop")
    daemon.up()

    assert "is paused" in badly(daemon, *restart(daemon, MAX))
    assert identity(daemon.living(MAX)) == identity(session)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pause_takes_one_agent_or_all(daemon: Daemon, command: str) -> None:
    daemon.up()

    for words in ((command,), (command, MAX, "--all")):
        done = daemon.command(*words)

        assert done.returncode == 2
        assert "name one AGENT, or use --all" in done.stderr
        assert "Traceback" not in done.stderr
    assert not daemon.town.is_paused()
    assert daemon.town.agents.read(MAX).desired is None


def test_an_unknown_agent_is_named(daemon: Daemon) -> None:
    daemon.up()

    for command in ("pause", "resume", "clear", "adopt", "run"):
        assert "gastown/crew/nobody" in badly(daemon, command, "gastown/crew/nobody")
        assert daemon.command(command, "--nonsense", MAX).returncode == 2


def test_clear_ends_a_quarantine(with_deacon: Daemon) -> None:
    daemon = with_deacon
    daemon.up()
    eventually(lambda: daemon.town.agents.read(DEACON).start_history.failures == 1, deadline=DEADLINE)
    session = daemon.living(DEACON)
    later = datetime.now(UTC) + timedelta(hours=1)
    daemon.town.agents.write_start_history(
        DEACON, StartHistory(failures=9, not_before=later, quarantined_until=later)
    )
    os.kill(session.pid, signal.SIGKILL)
    eventually(lambda: "in quarantine" in decision(daemon, DEACON), deadline=DEADLINE)
    assert not replaced(daemon, session, DEACON)

    assert well(daemon, "clear", "deacon") == f"{DEACON} may be started again\n"

    eventually(lambda: replaced(daemon, session, DEACON), deadline=DEADLINE)
    eventually(lambda: daemon.town.agents.read(DEACON).start_history.failures == 1, deadline=DEADLINE)
    well(daemon, "clear", DEACON)
    assert daemon.town.agents.read(DEACON).start_history == NO_HISTORY


def test_a_persons_session_is_left_alone_until_it_is_adopted(daemon: Daemon) -> None:
    daemon.up()
    assert f"gastown-mail run {MAXINE}" in badly(daemon, "adopt", MAXINE)
    agent = daemon.town.roster().agents[MAXINE]
    subprocess.run(
        ["tmux", "-L", daemon.settings.tmux_socket, "new-session", "-d", "-s", agent.session, "cat"],
        env=daemon.environ, check=True, timeout=60,
    )  # fmt: skip
    persons = daemon.living(MAXINE)
    for words in (restart(daemon, MAXINE), ("poke", MAXINE, "hello"), ("run", MAXINE)):
        assert "adopt" in badly(daemon, *words)
    assert identity(daemon.living(MAXINE)) == identity(persons)

    assert well(daemon, "adopt", MAXINE) == f"{MAXINE}: adopted session {agent.session}\n"

    assert "is managed already" in badly(daemon, "adopt", MAXINE)
    assert well(daemon, "poke", MAXINE, "hello") == f"{MAXINE}: delivered\n"
    well(daemon, *restart(daemon, MAXINE))
    assert replaced(daemon, persons, MAXINE)
    eventually(lambda: not psutil.pid_exists(persons.pid), deadline=DEADLINE)


def test_the_operator_needs_no_token_where_agents_do(strict: Daemon) -> None:
    strict.up()
    session = strict.run(MAX)
    forged = strict.ask("restart", "operator", to=MAX)
    eventually(lambda: strict.status(forged) == "refused", deadline=DEADLINE)
    assert identity(strict.living(MAX)) == identity(session)

    ident = well(strict, *restart(strict, MAX)).strip()

    assert strict.status(ident) == "done"
    assert replaced(strict, session, MAX)
    assert "did not give the incarnation" in badly(strict, "send", "restart", "--agent", MAX, *WAIT)
    assert "nobody" in badly(strict, *restart(strict, "gastown/crew/nobody"))
