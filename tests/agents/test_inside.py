"""What a real program asks of a real daemon by its own tool, and what ends with its session."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.mail.events import EventName, read_latest
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import Desired
from tests.agents.agent_town import HEARTBEAT, IT, WHY, RealAgent, a_place, town_toml
from tests.agents.cases import Case
from tests.agents.known import KNOWN
from tests.agents.programs import Place
from tests.support.daemon import REPOSITORY, Daemon, a_running_daemon
from tests.support.processes import gone
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(600)


class Served(RealAgent):
    """An agent whose tools run without a question, in a town that a daemon serves."""

    def __init__(self, case: Case, daemon: Daemon, place: Place, log: Path) -> None:
        super().__init__(daemon.town, place, log)
        self.case, self.daemon = case, daemon
        self.command = place.home / "gastown-mail"
        self.command.write_text(
            f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m gastown_mail "$@"\n'
        )
        self.command.chmod(0o755)

    def ready(self) -> Session:
        """Have it started unless it is ready; return its session."""
        session = self.daemon.session(IT)
        if session is None or session.dead or self.seen().state is not AgentState.READY:
            if session is not None:
                self.town.sessions.end(session, grace=2)
            self.start()
        self.wait_for(AgentState.READY)
        return self.live

    def start(self) -> None:
        """Have the daemon start it, and wait until it is told its first prompt."""
        agent, told = self.daemon.agent(IT), len(self.received())
        self.town.desired.set(IT, Desired.RUNNING)
        self.town.queues.enqueue_start(agent, f"{WHY}, after {told} messages", by="operator")
        eventually(lambda: self.daemon.session(IT), deadline=DEADLINE)
        self.wait_until_told(told)

    def use_tool(self, command: str) -> None:
        """Have the model run a command by the program's shell tool."""
        assert self.poke(f"TOOL {command}") == "delivered"
        if (self.case.name, "tool") in KNOWN:
            self.wait_for(AgentState.ASKS)
            assert self.poke().startswith("held: it asks a question")
            self.press("y", "Enter")

    def ask(self, words: str) -> None:
        """Have its tool send a request, and wait until it is done."""
        before = set(self.town.requests.all_ids())
        self.use_tool(f"{self.command} send {words}")
        (new,) = eventually(lambda: set(self.town.requests.all_ids()) - before, deadline=DEADLINE)
        self.daemon.done(new)

    def told(self) -> str:
        """Its latest first prompt."""
        return next(text for text in reversed(self.received()) if text.startswith(f"You are {IT}"))


@pytest.fixture(scope="session")
def served(case: Case) -> Iterator[Served]:
    """One daemon for the tests of a program."""
    with (
        tempfile.TemporaryDirectory(prefix="gma-", ignore_cleanup_errors=True) as folder,
        a_place(case.program, Path(folder).resolve() / "a") as (place, log),
    ):
        case.allow(place)
        with a_running_daemon(town_toml(case.program, place, case.free)) as daemon:
            yield Served(case, daemon, place, log)


@pytest.mark.check("tool")
def test_while_its_tool_runs(served: Served) -> None:
    served.ready()
    before = len(served.received())
    served.use_tool("timeout 4 tail -f /dev/null; touch finished")
    served.wait_for(AgentState.BUSY)

    outcomes = [served.poke() for _ in range(10)]

    assert set(outcomes) == {"held: it is busy"}
    served.wait_until((served.place.work / "finished").exists, "finished")
    if (served.case.name, "tool") in KNOWN:
        served.press("n", "Enter")
    served.wait_for(AgentState.READY)
    assert HEARTBEAT not in served.received()[before:]


@pytest.mark.check("cycle")
def test_a_cycle_from_inside(served: Served) -> None:
    old = served.ready()
    served.ask('cycle --handoff "the tests are green; next: merge it"')

    new = served.live
    assert new.incarnation != old.incarnation
    assert gone(old.pid)
    served.wait_for(AgentState.READY)
    handoff = served.town.handoff_file(served.daemon.agent(IT))
    assert "the tests are green; next: merge it" in handoff.read_text()
    if "{prompt}" in served.case.free:
        served.wait_until(lambda: str(handoff) in served.told(), "told of its handoff")


@pytest.mark.check("restart")
def test_a_restart_from_inside(served: Served) -> None:
    old = served.ready()
    before = len(served.received())
    served.ask("restart")

    new = served.live
    assert new.incarnation != old.incarnation
    assert gone(old.pid)
    served.wait_until_told(before + 1)
    served.tell("still there?")


@pytest.mark.check("shutdown")
def test_a_shutdown_from_inside(served: Served) -> None:
    old = served.ready()
    served.ask("shutdown")

    assert served.daemon.session(IT) is None
    assert gone(old.pid)


@pytest.mark.check("tree")
def test_its_whole_tree_ends_and_a_shared_daemon_is_spared(served: Served) -> None:
    session, home, work = served.ready(), served.place.home, served.place.work
    server = f"env -u TMUX tmux -S {home}/own"
    served.use_tool(
        f"(setsid sh -c 'echo $$ > left; exec sleep 4711' </dev/null >/dev/null 2>&1 &);"
        f" {server} new -d 'sleep 4712';"
        f" {server} display -p '#{{pid}}' > shared; {server} display -p '#{{pane_pid}}' >> shared"
    )
    files = work / "left", work / "shared"
    served.wait_until(
        lambda: len("".join(f.read_text() for f in files if f.exists()).split()) == 3, "started"
    )
    left, shared, inner = (int(pid) for file in files for pid in file.read_text().split())
    tree = [session.pid, left, *(each.pid for each in psutil.Process(session.pid).children(recursive=True))]

    served.daemon.done(served.daemon.ask("restart", "operator", to=IT))

    try:
        assert [pid for pid in tree if not gone(pid)] == []
        assert psutil.pid_exists(shared)
        assert psutil.pid_exists(inner)
        spared = [
            e
            for e in read_latest(served.town.redis, served.town.keys, 100)
            if e.fields["event"] == EventName.SPARED
        ]
        assert [event.fields["detail"] for event in spared] == [f"tmux (pid {shared})"]
    finally:
        subprocess.run(["tmux", "-S", f"{home}/own", "kill-server"], check=True, timeout=20)
