"""A session that a person started under an agent's name is left alone until it is adopted."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from gastown_mail.contracts.errors import GastownError
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import heartbeat
from gastown_mail.lifecycle.heartbeat_policy import Skip
from gastown_mail.lifecycle.start import adopt_session
from gastown_mail.mail.events import read_latest
from gastown_mail.sessions.session import Session
from gastown_mail.town.lease import Lease
from tests.support.agents import MAX
from tests.support.processes import clean_environ
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

OWN_WORK = (
    "sleep 600 & setsid sleep 600 & echo $$ > by-hand;"
    """ while read line; do echo "$line" >> lines; done"""
)
"""A person's program: two children, one in its own session, and a reader of what is typed."""

Person = Callable[[Stage], Session]


@pytest.fixture
def bound(stage: Stage) -> Stage:
    jobs.serving.set(stage.town)
    return stage


@pytest.fixture
def person() -> Iterator[Person]:
    """Starts a session with plain tmux; what is left of it ends after the test."""
    started: list[psutil.Process] = []

    def start(stage: Stage) -> Session:
        agent = stage.agent()
        subprocess.run(
            ["tmux", "-L", stage.town.settings.tmux_socket, "new-session", "-d", "-s", agent.session,
             "-c", str(agent.work_dir), "sh", "-c", OWN_WORK],
            env=dict(clean_environ()), check=True, timeout=60,
        )  # fmt: skip
        stage.wrote("by-hand")
        session = stage.living()
        started.extend(tree(session))
        return session

    yield start
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def tree(session: Session) -> list[psutil.Process]:
    """Wait until both children are there; return all processes of the session."""
    agent = psutil.Process(session.pid)
    eventually(lambda: len([child for child in agent.children() if child.name() == "sleep"]) == 2)
    return [agent, *agent.children(recursive=True)]


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def adopted_in(stage: Stage) -> list[str]:
    found = read_latest(stage.town.redis, stage.town.keys, 1000)
    return [event.fields["agent"] for event in found if event.fields["event"] == "adopted"]


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
def test_a_request_leaves_a_persons_session_alone(bound: Stage, person: Person, action: str) -> None:
    session = person(bound)

    status, why = bound.carry_out(action, "operator", to=MAX)

    assert status == "refused"
    assert "gastown-mail adopt" in why
    assert identity(bound.living()) == identity(session)
    assert not any(has_ended(process) for process in tree(session))


def test_nothing_is_typed_into_a_persons_session_and_nothing_started_over_it(
    bound: Stage, person: Person
) -> None:
    session = person(bound)

    poked, started = jobs.poke(MAX, "hello"), jobs.start(MAX, "a test wants it", "operator")

    assert poked.startswith("failed: ")
    assert started.startswith("left alone: ")
    assert "adopt it" in poked
    assert "adopt it" in started
    [act] = [act for act in heartbeat.observe(bound.town)[1] if act.agent.address == MAX]
    assert isinstance(act, Skip)
    assert "not managed" in act.why
    assert identity(bound.living()) == identity(session)
    assert not (bound.agent().work_dir / "lines").exists()


def test_an_adopted_session_is_poked_like_any_managed_one(bound: Stage, person: Person) -> None:
    session = person(bound)

    adopted = adopt_session(bound.town, bound.agent())

    assert (adopted.id, adopted.pid, adopted.started_at) == (session.id, session.pid, session.started_at)
    assert bound.record().incarnation == adopted.incarnation != ""
    assert adopted_in(bound) == [MAX]
    assert jobs.start(MAX, "a test wants it", "operator") == "runs already"
    assert jobs.poke(MAX, "hello") == "delivered"
    eventually(lambda: bound.wrote("lines").read_text() == "hello\n")


def test_a_restart_ends_an_adopted_session_with_its_tree_and_starts_a_managed_one(
    bound: Stage, person: Person
) -> None:
    processes = tree(person(bound))
    adopted = adopt_session(bound.town, bound.agent())

    status, why = bound.carry_out("restart", "operator", to=MAX)

    assert status == "done", why
    ours = bound.living()
    assert ours.pid != adopted.pid
    assert ours.incarnation not in ("", adopted.incarnation)
    bound.wait_for_incarnation(ours)
    eventually(lambda: all(has_ended(process) for process in processes))


def test_a_shutdown_ends_an_adopted_session_with_its_tree(bound: Stage, person: Person) -> None:
    processes = tree(person(bound))
    adopt_session(bound.town, bound.agent())

    assert bound.carry_out("shutdown", "operator", to=MAX)[0] == "done"

    assert bound.session() is None
    eventually(lambda: all(has_ended(process) for process in processes))


def test_without_a_session_adopt_is_refused(bound: Stage) -> None:
    with pytest.raises(GastownError, match=f"there is no session .* gastown-mail run {MAX}"):
        adopt_session(bound.town, bound.agent())

    assert adopted_in(bound) == []
    assert bound.session() is None


def test_a_managed_session_keeps_its_token(bound: Stage) -> None:
    session = bound.run()

    with pytest.raises(GastownError, match="is managed already"):
        adopt_session(bound.town, bound.agent())

    assert identity(bound.living()) == identity(session)
    assert bound.record().incarnation == session.incarnation


def test_a_session_is_adopted_once(bound: Stage, person: Person) -> None:
    person(bound)
    adopted = adopt_session(bound.town, bound.agent())

    with pytest.raises(GastownError, match="is managed already"):
        adopt_session(bound.town, bound.agent())

    assert identity(bound.living()) == identity(adopted)
    assert adopted_in(bound) == [MAX]


def test_a_session_is_not_adopted_while_another_operation_is_in_progress(
    bound: Stage, person: Person
) -> None:
    person(bound)
    other = Lease(bound.town.redis, bound.town.keys.lease(MAX), bound.town.host)
    assert other.acquire()

    with pytest.raises(GastownError, match="try again"):
        adopt_session(bound.town, bound.agent())

    assert bound.living().incarnation == ""
    other.release()
    assert adopt_session(bound.town, bound.agent()).incarnation
