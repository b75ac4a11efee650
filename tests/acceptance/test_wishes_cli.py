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
from tests.acceptance.daemons import DEADLINE, TOWN, Place, a_place
from tests.integration.stage import DEACON, MAX, MAXINE, WITNESS, identity
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

WAIT = ("--wait", str(DEADLINE))


@pytest.fixture
def with_deacon() -> Iterator[Place]:
    """A town with a deacon, which is kept running."""
    with a_place(TOWN + '[agents."deacon/"]\n') as made:
        yield made


@pytest.fixture
def strict() -> Iterator[Place]:
    """A town where agents must prove who they are."""
    with a_place(TOWN.replace("[daemon]\n", "[daemon]\nrequire_incarnation = true\n")) as made:
        yield made


def well(place: Place, *words: str) -> str:
    """The command's stdout; it must succeed."""
    done = place.command(*words)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def badly(place: Place, *words: str, code: int = 1) -> str:
    """The one sentence of a command that fails."""
    done = place.command(*words)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("waiting at most")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("gastown-mail: ")
    return said[0]


def restart(place: Place, address: str, wait: tuple[str, ...] = WAIT) -> tuple[str, ...]:
    """The arguments with which an operator restarts an agent."""
    return ("send", "restart", "--agent", "operator", "--to", address, *wait)


def replaced(place: Place, session: Session, address: str) -> bool:
    found = place.session(address)
    return found is not None and not found.dead and identity(found) != identity(session)


def decision(place: Place, address: str) -> str:
    """What the last heartbeat decided about the agent."""
    return place.town.agents.read(address).decision


def test_a_paused_agent_is_left_alone_until_it_is_resumed(place: Place) -> None:
    place.up()
    session = place.run(MAX)

    assert (
        well(place, "pause", "gastown-crew-max")
        == f"{MAX} is paused; gastown-mail resume gastown-crew-max ends the pause\n"
    )

    assert "is paused" in badly(place, *restart(place, MAX))
    assert "held: paused" in badly(place, "poke", MAX, "hello")
    assert {row["agent"]: row["desired"] for row in place.document("agents")}[MAX] == "paused"
    assert identity(place.living(MAX)) == identity(session)
    assert well(place, "resume", MAX) == f"{MAX} is no longer paused\n"
    assert well(place, "poke", MAX, "hello") == f"{MAX}: delivered\n"
    well(place, *restart(place, MAX))
    assert replaced(place, session, MAX)


def test_run_ends_a_pause_and_a_shutdown(place: Place) -> None:
    place.up()
    session = place.run(MAX)
    well(place, "pause", MAX)

    assert well(place, "run", MAX) == f"{MAX}: runs already\n"
    well(place, "send", "shutdown", "--agent", "operator", "--to", MAX, *WAIT)
    assert place.session(MAX) is None

    assert well(place, "run", MAX).startswith(f"{MAX}: started ")
    assert replaced(place, session, MAX)


def test_while_the_whole_town_is_paused_requests_wait(place: Place) -> None:
    place.up()
    session = place.run(MAX)

    assert (
        well(place, "pause", "--all")
        == "the whole town is paused; gastown-mail resume --all ends the pause\n"
    )

    assert "still received" in badly(place, *restart(place, MAX, ("--wait", "3")))
    assert "the town is paused" in badly(place, "run", WITNESS)
    assert "held: paused" in badly(place, "poke", MAX, "hello")
    assert identity(place.living(MAX)) == identity(session)
    assert place.session(WITNESS) is None
    assert well(place, "resume", "--all") == "the whole town is no longer paused\n"
    eventually(lambda: replaced(place, session, MAX), deadline=DEADLINE)
    place.run(WITNESS)


def test_a_pause_outlives_the_daemon(place: Place) -> None:
    place.up()
    session = place.run(MAX)
    well(place, "pause", MAX)

    well(place, "stop")
    place.up()

    assert "is paused" in badly(place, *restart(place, MAX))
    assert identity(place.living(MAX)) == identity(session)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_pause_is_of_one_agent_or_of_all(place: Place, command: str) -> None:
    place.up()

    for words in ((command,), (command, MAX, "--all")):
        done = place.command(*words)

        assert done.returncode == 2
        assert "name one AGENT, or use --all" in done.stderr
        assert "Traceback" not in done.stderr
    assert not place.town.is_paused()
    assert place.town.agents.read(MAX).desired is None


def test_an_agent_that_is_not_there_is_named(place: Place) -> None:
    place.up()

    for command in ("pause", "resume", "clear", "adopt", "run"):
        assert "gastown/crew/nobody" in badly(place, command, "gastown/crew/nobody")
        assert place.command(command, "--nonsense", MAX).returncode == 2


def test_clear_ends_a_quarantine(with_deacon: Place) -> None:
    place = with_deacon
    place.up()
    eventually(lambda: place.town.agents.read(DEACON).start_history.failures == 1, deadline=DEADLINE)
    session = place.living(DEACON)
    later = datetime.now(UTC) + timedelta(hours=1)
    place.town.agents.write_start_history(
        DEACON, StartHistory(failures=9, not_before=later, quarantined_until=later)
    )
    os.kill(session.pid, signal.SIGKILL)
    eventually(lambda: "in quarantine" in decision(place, DEACON), deadline=DEADLINE)
    assert not replaced(place, session, DEACON)

    assert well(place, "clear", "deacon") == f"{DEACON} may be started again\n"

    eventually(lambda: replaced(place, session, DEACON), deadline=DEADLINE)
    eventually(lambda: place.town.agents.read(DEACON).start_history.failures == 1, deadline=DEADLINE)
    well(place, "clear", DEACON)
    assert place.town.agents.read(DEACON).start_history == NO_HISTORY


def test_a_persons_session_is_left_alone_until_it_is_adopted(place: Place) -> None:
    place.up()
    assert f"gastown-mail run {MAXINE}" in badly(place, "adopt", MAXINE)
    agent = place.town.roster().agents[MAXINE]
    subprocess.run(
        ["tmux", "-L", place.settings.tmux_socket, "new-session", "-d", "-s", agent.session, "cat"],
        env=place.environ, check=True, timeout=10,
    )  # fmt: skip
    persons = place.living(MAXINE)
    for words in (restart(place, MAXINE), ("poke", MAXINE, "hello"), ("run", MAXINE)):
        assert "adopt" in badly(place, *words)
    assert identity(place.living(MAXINE)) == identity(persons)

    assert well(place, "adopt", MAXINE) == f"{MAXINE}: adopted session {agent.session}\n"

    assert "is ours already" in badly(place, "adopt", MAXINE)
    assert well(place, "poke", MAXINE, "hello") == f"{MAXINE}: delivered\n"
    well(place, *restart(place, MAXINE))
    assert replaced(place, persons, MAXINE)
    eventually(lambda: not psutil.pid_exists(persons.pid), deadline=DEADLINE)


def test_the_operator_passes_where_agents_must_prove_themselves(strict: Place) -> None:
    strict.up()
    session = strict.run(MAX)
    forged = strict.ask("operator", "restart", to=MAX)
    eventually(lambda: strict.status(forged) == "refused", deadline=DEADLINE)
    assert identity(strict.living(MAX)) == identity(session)

    ident = well(strict, *restart(strict, MAX)).strip()

    assert strict.status(ident) == "done"
    assert replaced(strict, session, MAX)
    assert "did not prove itself" in badly(strict, "send", "restart", "--agent", MAX, *WAIT)
    assert "nobody" in badly(strict, *restart(strict, "gastown/crew/nobody"))
