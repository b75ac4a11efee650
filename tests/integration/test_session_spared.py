"""Shared daemons that an agent happened to start outlive its session, with what lives below them."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gastown_mail.contracts.shared_daemons import spared_programs
from gastown_mail.mail.events import read_latest
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.process_table import Process
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.town.town import Town
from tests.integration.tmux_world import STAY, TmuxWorld
from tests.support.agents import MAX, RECORDED
from tests.support.stage import Stage
from tests.support.wait import eventually

DETACH = """
import os, sys
if sys.argv[1] in ("halfway", "twice") and os.fork():
    sys.exit()
if sys.argv[1] in ("once", "twice"):
    os.setsid()
if sys.argv[1] == "twice" and os.fork():
    os._exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Detaches `once` (a session of its own), `twice` (its parents end too), `halfway` (only that) or `not`.

Then it becomes another program.
"""


@pytest.fixture
def world(world: TmuxWorld) -> Iterator[TmuxWorld]:
    """A world in which processes may be left over: they end after the test."""
    yield world
    for token in world.tokens:
        assert processes.terminate_all(partial(processes.with_incarnation, token), grace=1.0) == set()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """A program that calls itself as the test wants, stays, and has detached as the test wants."""

    def make(name: str, *arguments: str, detach: str = "twice") -> str:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.symlink_to(shutil.which("bash") or "/bin/bash")
        words = [path, "-c", "trap : HUP; while :; do sleep 600; done", *(arguments or ["x"])]
        return shlex.join(map(str, [sys.executable, "-S", "-c", DETACH, detach, *words]))

    return make


def start(world: TmuxWorld, command: str, count: int) -> tuple[Session, set[Process]]:
    """Start a session that runs these commands and stays; return it with its `count` processes."""
    session = world.start(f"{command}\ntouch up; {STAY}")
    world.wait_for(world.folder / "up")
    return session, tree(session.incarnation, count)


def tree(token: str, count: int) -> set[Process]:
    """Return the processes with this token, of which there will be `count`, each running its program."""
    eventually(lambda: len(running(token)) == count)
    return running(token)


def running(token: str) -> set[Process]:
    return {p for p in processes.with_incarnation(token) if DETACH not in process_table.arguments(p.pid)}


def named(tree: set[Process], *words: str) -> Process:
    """Return the one process of the tree that has these words among its arguments."""
    found = [p for p in tree if not set(words) - set(process_table.arguments(p.pid))]
    assert len(found) == 1, processes.describe(tree)
    return found[0]


def living(tree: set[Process]) -> set[Process]:
    return {process for process in tree if processes.alive(process)}


def test_a_tmux_server_is_spared_with_what_runs_in_it(world: TmuxWorld) -> None:
    inside = f"tmux -f /dev/null -S {world.folder}/inner"
    persons = "(nohup setsid sleep 601 >/dev/null 2>&1 &); sleep 602 & exec sleep 603"
    session, everything = start(world, f"{inside} new-session -d {shlex.quote(persons)}; sleep 604 &", 6)
    agents = {named(everything, "sleep", seconds) for seconds in ("600", "604")}
    server = named(everything, "tmux", "-S")
    assert process_table.read_process(named(everything, "601").pid).parent != server.pid  # type: ignore[union-attr]

    spared = world.sessions.end(session, grace=30.0)

    assert spared == f"tmux (pid {server.pid})"
    assert living(everything) == everything - agents
    assert len(everything - agents) == 4
    assert world.sessions.snapshot() == {}
    assert subprocess.run([*inside.split(), "has-session"], check=False).returncode == 0


def test_what_was_spared_holds_nothing_up_and_is_named_once(world: TmuxWorld) -> None:
    inside = f"tmux -f /dev/null -S {world.folder}/inner new-session -d 'sleep 601'"
    session, _ = start(world, inside, 3)
    assert "tmux" in world.sessions.end(session, grace=30.0)
    left = processes.with_incarnation(session.incarnation)

    assert world.sessions.end_orphans(session.incarnation, grace=30.0) == ""

    assert len(left) == 2
    assert living(left) == left


def test_orphans_end_without_the_shared_daemons_among_them(world: TmuxWorld) -> None:
    inside = f"tmux -f /dev/null -S {world.folder}/inner new-session -d 'sleep 601'"
    session, everything = start(world, f"{inside}; setsid sleep 604 &", 4)
    world.tmux.run("kill-session", "-t", session.id)
    server, agents = named(everything, "tmux", "-S"), named(everything, "604")

    assert world.sessions.end_orphans(session.incarnation, grace=1.0) == f"tmux (pid {server.pid})"

    assert processes.alive(server)
    assert not processes.alive(agents)


@pytest.mark.skipif(os.geteuid() != 0, reason="they hide their environment from others, and live on unseen")
def test_real_agents_for_keys_are_spared(world: TmuxWorld) -> None:
    home = world.folder / "gnupg"
    home.mkdir(mode=0o700)
    commands = {"ssh-agent": f"ssh-agent -a {world.folder}/ssh.sock", "gpg-agent": "gpg-agent --daemon"}
    here = {name: line for name, line in commands.items() if shutil.which(name)}
    if not here:
        pytest.skip("neither ssh-agent nor gpg-agent is installed")
    lines = [f"export GNUPGHOME={home}", *(f"{line} >/dev/null" for line in here.values())]
    session, everything = start(world, "\n".join(lines), len(here) + 1)
    daemons = {name: named(everything, *line.split()) for name, line in here.items()}

    spared = world.sessions.end(session, grace=30.0)

    assert {f"{name} (pid {daemon.pid})" for name, daemon in daemons.items()} == set(spared.split(", "))
    assert living(everything) == set(daemons.values())


@pytest.mark.parametrize(
    ("words", "detach"),
    [
        (("codex", "app-server", "--listen", "unix://", "--managed-daemon"), "once"),
        (("codex", "app-server", "daemon", "pid-update-loop"), "once"),
        (("watchman", "--foreground"), "twice"),
        (("java17", "-cp", "x.jar", "org.gradle.launcher.daemon.bootstrap.GradleDaemon", "8.1"), "twice"),
        (("bazel(mine)", "--max_idle_secs=10800"), "twice"),
        (("node", "/usr/lib/node_modules/eslint_d/lib/daemon.js", "1"), "once"),
        (("SCREEN", "-d", "-m"), "twice"),
    ],
)
def test_a_program_of_the_list_that_has_detached_is_spared(
    world: TmuxWorld, program: Callable[..., str], words: tuple[str, ...], detach: str
) -> None:
    session, everything = start(world, f"{program(*words, detach=detach)} &", 3)
    daemon = named(everything, *words[1:])

    spared = world.sessions.end(session, grace=30.0)

    assert spared.endswith(f"(pid {daemon.pid})")
    assert len(living(everything)) == 2  # it, and the `sleep` below it


@pytest.mark.parametrize(
    ("words", "detach"),
    [
        (("postgres", "-D", "data"), "twice"),
        (("npm", "run", "dev"), "once"),
        (("codex", "app-server"), "once"),
        (("watchman-make",), "twice"),
        (("tmux", "attach"), "not"),
        (("dockerd",), "halfway"),
    ],
)
def test_other_programs_and_those_that_have_not_detached_end(
    world: TmuxWorld, program: Callable[..., str], words: tuple[str, ...], detach: str
) -> None:
    session, everything = start(world, f"{program(*words, detach=detach)} &", 3)

    assert world.sessions.end(session, grace=0.3) == ""

    assert living(everything) == set()


def test_a_client_in_front_ends_and_its_server_is_spared(world: TmuxWorld) -> None:
    session = world.start(f"exec tmux -f /dev/null -S {world.folder}/inner new-session 'exec sleep 601'")
    everything = tree(session.incarnation, 3)
    (client,) = [process for process in everything if process.pid == session.pid]

    spared = world.sessions.end(session, grace=30.0)

    assert spared.startswith("tmux (pid ")
    assert living(everything) == everything - {client}


@pytest.mark.parametrize("line", ["{}", "exec {}", "true && {}; true", "sh -c '{}; :'"])
def test_what_the_agents_own_command_names_ends(world: TmuxWorld, line: str) -> None:
    command = line.format(f"tmux -f /dev/null -S {world.folder}/inner new-session cat")
    session = world.start(command)
    eventually(lambda: len(processes.with_incarnation(session.incarnation)) >= 3)
    everything = processes.with_incarnation(session.incarnation)

    assert world.sessions.end(session, grace=1.0, command=command) == ""

    assert living(everything) == set()
    assert processes.with_incarnation(session.incarnation) == set()


def test_an_agent_wrapped_in_ssh_agent_ends(world: TmuxWorld) -> None:
    command = "ssh-agent sh -c 'sleep 601; :'"
    if not shutil.which("ssh-agent"):
        pytest.skip("ssh-agent is not installed")
    session = world.start(command)
    root = processes.child_of(session.server, session.pid)
    assert root
    eventually(lambda: len(processes.descendants([root])) >= 3)
    everything = processes.descendants([root])

    assert world.sessions.end(session, grace=1.0, command=command) == ""

    assert living(everything) == set()


def test_the_list_is_a_setting(world: TmuxWorld, program: Callable[..., str]) -> None:
    world.sessions = Sessions(world.tmux, spare=spared_programs(["!watchman", "mytool serve"]))
    lines = [program("watchman", "x"), program("mytool", "serve"), program("mytool", "build")]
    session, everything = start(world, "\n".join(lines), 7)
    daemon = named(everything, "serve")

    assert world.sessions.end(session, grace=1.0) == f"mytool serve (pid {daemon.pid})"

    assert processes.alive(daemon)
    assert len(living(everything)) == 2


def test_a_cycle_names_what_it_spares_once(make_town: Callable[..., Town], tmp_path: Path) -> None:
    server, script = f"tmux -f /dev/null -S {tmp_path}/inner", tmp_path / "start-tmux"
    script.write_text(f"#!/bin/sh\n{server} has-session 2>/dev/null || {server} new-session -d cat\n")
    script.chmod(0o755)
    stage = Stage(make_town(RECORDED.replace("sh -c '", f"sh -c '{script}; ", 1)))
    try:
        stage.run()
        stage.wrote("prompt")
        ended = [stage.carry_out("cycle"), stage.carry_out("restart"), stage.carry_out("shutdown")]
        stage.run()
        pid = subprocess.run(
            [*server.split(), "display-message", "-p", "#{pid}"], capture_output=True, text=True, check=True
        ).stdout.strip()
    finally:
        subprocess.run([*server.split(), "kill-server"], check=False)

    assert [status for status, _ in ended] == ["done", "done", "done"]
    events = [event.fields for event in read_latest(stage.redis, stage.town.keys, 500)]
    (event,) = [fields for fields in events if fields["event"] == "spared"]
    (cycle,) = [one for one in events if one["event"] == "done" and one["action"] == "cycle"]
    assert event == {
        "event": "spared", "agent": MAX, "request": cycle["request"], "detail": f"tmux (pid {pid})"
    }  # fmt: skip
