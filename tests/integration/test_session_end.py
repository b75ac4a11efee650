"""Ending a session: all of it, only it, and quickly when it cooperates."""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import SessionNotManaged, StartFailed, StateUnknown
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.process_table import Process
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.tmux import Tmux, TmuxResult
from tests.integration.tmux_world import STAY, WHEN_TOLD, TmuxWorld, python
from tests.support.wait import eventually

STUBBORN = "trap '' TERM HUP; while :; do sleep 0.05; done"
DOUBLE_FORK = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for ignored in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(ignored, signal.SIG_IGN)
        os.closerange(0, 100)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""


@pytest.fixture
def bystander() -> Iterator[Process]:
    """A process without a token and one of another incarnation must survive every test here."""
    nobodys = subprocess.Popen(["sleep", "600"])
    others = subprocess.Popen(["sleep", "600"], env={**os.environ, "GASTOWN_INCARNATION": "of-another"})
    rows = [process_table.read_process(child.pid) for child in (nobodys, others)]
    yield from (row for row in rows[:1] if row)
    alive = [child.poll() is None for child in (nobodys, others)]
    for child in (nobodys, others):
        child.kill()
        child.wait()
    assert alive == [True, True]


def certainly_gone(world: TmuxWorld, name: str) -> bool:
    try:
        return world.find(name) is None
    except StateUnknown:  # The server is just ending.
        return False


def tree(world: TmuxWorld, token: str, count: int) -> set[Process]:
    eventually(lambda: len(processes.with_incarnation(token)) >= count)
    return processes.with_incarnation(token)


def test_a_cooperative_session_does_not_use_up_its_grace(world: TmuxWorld, bystander: Process) -> None:
    session = world.start()
    begun = time.monotonic()

    world.sessions.end(session, grace=80.0)

    assert time.monotonic() - begun < 60.0
    assert world.find(session.name) is None
    assert processes.with_incarnation(session.incarnation) == set()


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (f'setsid sh -c "{STUBBORN}" & {STAY}', 3),
        (f"nohup sleep 600 >/dev/null 2>&1 & {STAY}", 2),
        (f"(setsid setsid sleep 600 &) ; {STUBBORN}", 3),
        (python(DOUBLE_FORK), 2),
        (STUBBORN, 2),
        (f'env -i sh -c "{STUBBORN}" & wait', 1),
        ("sh -c 'sleep 600 & sleep 600 & wait' & sh -c 'sleep 600 | sleep 600' & wait", 6),
    ],
)
def test_the_whole_tree_ends(world: TmuxWorld, bystander: Process, command: str, count: int) -> None:
    session = world.start(command)
    seen = tree(world, session.incarnation, count)
    root = processes.child_of(session.server, session.pid)
    assert root is not None
    seen |= processes.descendants([root])

    world.sessions.end(session, grace=0.3)

    assert [process for process in seen if processes.alive(process)] == []
    assert processes.with_incarnation(session.incarnation) == set()
    assert world.sessions.snapshot() == {}


def test_what_lost_its_parents_and_its_environment_ends_too(world: TmuxWorld) -> None:
    session = world.start(f"(env -i sleep 601 &); (env -i sh -c '(sleep 602 &)'); touch up; {STAY}")
    world.wait_for(world.folder / "up")
    root = processes.child_of(session.server, session.pid)
    assert root
    eventually(lambda: len(processes.descendants([root])) == 3)
    lost = processes.descendants([root]) - {root}
    assert not any(process.parent == root.pid for process in lost)
    assert processes.with_incarnation(session.incarnation) == {root}

    world.sessions.end(session, grace=1.0)

    assert not any(processes.alive(process) for process in lost)


def test_what_detaches_without_its_environment_while_the_session_ends_ends_too(world: TmuxWorld) -> None:
    """It was seen as a descendant before its parent ended."""
    inner = f"{STUBBORN.replace('; while', '; touch up; while')}"
    session = world.start(f"env -i setsid sh -c {shlex.quote(inner)} & sh -c 'sleep 600; :' & wait")
    world.wait_for(world.folder / "up")
    root = processes.child_of(session.server, session.pid)
    assert root
    (stubborn,) = [one for one in processes.descendants([root]) if inner in process_table.arguments(one.pid)]

    world.sessions.end(session, grace=0.3)

    assert not processes.alive(stubborn)


def test_an_agent_gets_its_grace_to_clean_up(world: TmuxWorld, tmp_path: Path) -> None:
    session = world.start(
        "trap 'sleep 0.4; echo saved > saved; exit' TERM; touch up; while :; do sleep 0.05; done"
    )
    world.wait_for(tmp_path / "up")

    world.sessions.end(session, grace=10.0)

    assert (tmp_path / "saved").read_text() == "saved\n"


def test_an_agent_inside_a_shell_gets_its_grace_too(world: TmuxWorld, tmp_path: Path) -> None:
    agent = "trap 'sleep 0.4; echo saved > saved; exit' TERM; touch up; while :; do sleep 0.05; done"
    session = world.start(f"{shlex.join(['sh', '-c', agent])}; true")
    world.wait_for(tmp_path / "up")

    world.sessions.end(session, grace=10.0)

    assert (tmp_path / "saved").read_text() == "saved\n"


def test_sessions_that_share_only_a_name_prefix_survive(world: TmuxWorld) -> None:
    victim = world.start(session="gt-crew-max")
    neighbours = [world.start(session=name) for name in ("gt-crew-maxine", "gt-crew-max-2", "gt-crew")]
    world.sessions.end(victim, grace=1.0)

    world.sessions.end(victim, grace=1.0)

    assert world.living() == {one.name: one.incarnation for one in neighbours}
    assert all(len(processes.with_incarnation(one.incarnation)) == 1 for one in neighbours)


def test_a_session_that_replaced_the_target_survives(world: TmuxWorld) -> None:
    old = world.start(session="max")
    world.sessions.end(old, grace=1.0)
    new = world.start(session="max")

    world.sessions.end(old, grace=1.0)
    world.sessions.end(replace(old, id=new.id, pane=new.pane, pid=new.pid), grace=1.0)

    assert world.living() == {"max": new.incarnation}
    assert processes.with_incarnation(new.incarnation) != set()


def test_what_a_replaced_session_leaves_is_ended_and_the_successor_survives(world: TmuxWorld) -> None:
    old = world.start(f"setsid sleep 600 & {STAY}", session="max")
    tree(world, old.incarnation, 2)
    world.tmux.run("kill-session", "-t", old.id)
    new = world.start(session="max")
    assert processes.with_incarnation(old.incarnation) != set()

    world.sessions.end(old, grace=1.0)

    assert processes.with_incarnation(old.incarnation) == set()
    assert world.living() == {"max": new.incarnation}


def test_what_a_killed_server_leaves_is_ended(world: TmuxWorld) -> None:
    session = world.start(f"setsid sleep 600 & {STAY}")
    tree(world, session.incarnation, 2)
    os.kill(session.server, signal.SIGKILL)
    eventually(lambda: certainly_gone(world, session.name))
    assert processes.with_incarnation(session.incarnation) != set()

    world.sessions.end_orphans(session.incarnation, grace=1.0)

    assert processes.with_incarnation(session.incarnation) == set()


def test_ending_a_session_twice_is_harmless(world: TmuxWorld, bystander: Process) -> None:
    session, other = world.start(f"setsid sleep 600 & {STUBBORN}"), world.start(session="other")
    failures: list[BaseException] = []

    def end() -> None:
        try:
            world.sessions.end(session, grace=0.3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=end) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end()

    assert failures == []
    assert world.living() == {"other": other.incarnation}


def test_a_session_without_a_token_is_never_touched(world: TmuxWorld) -> None:
    world.start(session="ours")
    world.tmux.run("new-session", "-d", "-s", "a-persons", "cat")
    persons = world.sessions.snapshot()["a-persons"]

    with pytest.raises(SessionNotManaged, match="adopt"):
        world.sessions.end(persons, grace=1.0)
    world.sessions.end(replace(persons, incarnation="made-up"), grace=1.0)

    found = world.find("a-persons")
    assert found
    assert (found.id, found.pid, found.dead) == (persons.id, persons.pid, False)


def test_an_adopted_session_is_managed_and_can_be_ended(world: TmuxWorld, tmp_path: Path) -> None:
    ours = world.start(session="ours")
    world.tmux.run("new-session", "-d", "-s", "a-persons", "sleep 600 & sleep 601; :")
    persons = world.sessions.snapshot()["a-persons"]
    root = processes.child_of(persons.server, persons.pid)
    assert root
    eventually(lambda: len(processes.descendants([root])) == 3)
    family = processes.descendants([root])

    adopted = world.sessions.adopt(persons, world.agent("a-persons"), incarnation="mine", generation=9)

    assert (adopted.id, adopted.pid, adopted.pane) == (persons.id, persons.pid, persons.pane)
    assert (adopted.incarnation, adopted.generation, adopted.agent) == ("mine", 9, "rig/crew/a-persons")
    assert adopted.started_at == persons.started_at
    with pytest.raises(StartFailed, match="is managed already"):
        world.sessions.adopt(persons, world.agent("a-persons"), incarnation="other", generation=10)
    world.sessions.end(adopted, grace=1.0)
    assert [process for process in family if processes.alive(process)] == []
    with pytest.raises(StartFailed, match="not newer"):
        world.start(session="a-persons", generation=9)
    with pytest.raises(StartFailed, match="not adopted"):
        world.sessions.adopt(persons, world.agent("a-persons"), incarnation="late", generation=10)
    assert world.living() == {"ours": ours.incarnation}


def test_a_dead_pane_is_removed_with_its_remains(world: TmuxWorld) -> None:
    session = world.start(f"setsid sleep 600 & {WHEN_TOLD}; exit 7")
    (world.folder / "go").touch()
    dead = eventually(lambda: (seen := world.find(session.name)) and seen.dead and seen)
    assert dead

    world.sessions.end(dead, grace=1.0)

    assert world.sessions.snapshot() == {}
    assert processes.with_incarnation(session.incarnation) == set()


def test_windows_that_a_person_opened_end_with_the_session(world: TmuxWorld) -> None:
    session = world.start()
    world.tmux.run("split-window", "-d", "-t", session.pane, "exec sleep 600")
    world.tmux.run("new-window", "-d", "-t", session.id, STUBBORN)
    tree(world, session.incarnation, 4)

    world.sessions.end(session, grace=0.3)

    assert processes.with_incarnation(session.incarnation) == set()


def test_without_the_agents_pane_the_session_is_dead_and_can_be_ended(world: TmuxWorld) -> None:
    session = world.start()
    world.tmux.run("split-window", "-d", "-t", session.pane, "exec sleep 600")
    world.tmux.run("kill-pane", "-t", session.pane)
    seen = world.find(session.name)
    assert seen is not None
    assert (seen.dead, seen.pid, seen.pane) == (True, 0, session.pane)

    world.sessions.end(session, grace=1.0)

    assert world.sessions.snapshot() == {}


def test_a_stopped_server_is_unknown_and_nothing_is_signalled(world: TmuxWorld) -> None:
    session = world.start()
    hasty = Sessions(Tmux(world.socket, deadline=0.3, environ=world.environ))
    os.kill(session.server, signal.SIGSTOP)
    try:
        with pytest.raises(StateUnknown):
            hasty.end(session, grace=0.1)
    finally:
        os.kill(session.server, signal.SIGCONT)

    assert world.living() == {session.name: session.incarnation}
    assert len(processes.with_incarnation(session.incarnation)) == 1


def test_the_server_lives_even_when_the_session_started_it(world: TmuxWorld) -> None:
    token = world.token()
    subprocess.run(
        ["tmux", "-L", world.socket, "-f", "/dev/null", "new-session", "-d", "-s", "first", "cat"],
        env={**os.environ, "GASTOWN_INCARNATION": token},
        check=True,
    )
    session, other = world.start(token=token), world.start(session="other")
    assert session.server in {process.pid for process in processes.with_incarnation(token)}

    assert world.sessions.end(session, grace=1.0) == ""
    assert world.sessions.end(session, grace=1.0) == ""

    assert world.living()["other"] == other.incarnation


def test_a_program_that_ended_unnoticed_by_tmux_makes_the_session_dead(world: TmuxWorld) -> None:
    """A server that missed a SIGCHLD shows a living pane while a detached child holds the terminal."""
    child = subprocess.Popen(["true"])
    eventually(lambda: process_table.is_zombie(child.pid, os.getpid()))
    living = f"$1|%1|{child.pid}|0|||0|0|0|1|1|1|{os.getpid()}|1|0|||1|1|%1|t0ken|sh|a/|gone"

    class MissedIt(Tmux):
        def run_raw(self, *args: object, **kwargs: object) -> TmuxResult:
            return TmuxResult(0, living, "")

    seen = Sessions(MissedIt(world.socket, environ=world.environ)).snapshot().get("gone")
    assert seen is not None
    assert seen.dead
    assert child.wait() == 0


def test_ending_takes_few_processes(world: TmuxWorld) -> None:
    session = world.start()
    before = world.tmux.calls

    world.sessions.end(session, grace=1.0)

    assert world.tmux.calls - before <= 3
