"""Pokes that are held: nothing is typed to a person, into a shell, a dead pane or an unmanaged session."""

import contextlib
import os
import pty
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions import process_table
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.sessions.typing import PASTE_PAUSE
from tests.integration.tmux_world import (
    RECORDER,
    WHEN_TOLD,
    Recorder,
    TmuxWorld,
    poke,
    poke_all,
    poke_of,
    python,
)
from tests.support.wait import eventually


@contextlib.contextmanager
def attached(world: TmuxWorld, session: Session) -> Iterator[None]:
    """Attach a client with a terminal of 200 x 50 to the session."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm")
        os.execvp("tmux", ["tmux", "-L", world.socket, "attach-session", "-t", f"={session.name}:"])
    try:
        eventually(lambda: any(seen.attached for seen in world.sessions.snapshot().values()))
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def is_typing(script: list[str]) -> bool:
    """Whether a script types a text."""
    return any("paste-buffer" in line for line in script)


def test_copy_mode_is_left_first(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()
    world.tmux.run("copy-mode", "-t", session.pane)
    seen = world.find(session.name)
    assert seen is not None
    assert seen.in_mode

    assert poke(world, session, "text") == "delivered"
    eventually(lambda: record.read_bytes() == b"text\r")


def test_an_attached_client_holds_the_poke(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()

    with attached(world, session):
        assert poke(world, session, "text") == "held: a person is attached"

    assert record.read_bytes() == b""


def test_a_client_attached_through_a_grouped_session_holds_the_poke(
    world: TmuxWorld, recorder: Recorder
) -> None:
    session, record = recorder()
    world.tmux.run("new-session", "-d", "-s", "guest", "-t", f"={session.name}:")
    ident = world.tmux.run("display-message", "-p", "-t", "=guest:", "#{session_id}").strip()

    with attached(world, replace(session, id=ident, name="guest")):
        assert poke(world, session, "text") == "held: a person is attached"
    assert record.read_bytes() == b""


def test_a_client_that_attaches_between_text_and_enter_gets_no_enter(
    world: TmuxWorld, recorder: Recorder
) -> None:
    session, record = recorder()
    with contextlib.ExitStack() as stack:

        def attach_once(seconds: float) -> None:
            if seconds == PASTE_PAUSE:
                stack.enter_context(attached(world, session))
            time.sleep(seconds)

        sessions = Sessions(world.tmux, sleep=attach_once)
        outcome = poke_all(sessions, poke_of(session, "text"))[session.name]

    assert outcome == "held: the text was typed and taken back: a person is attached"
    assert record.read_bytes() == b"text\x15"


SHELLS = ["exec bash --norc -i", "exec sh", "exec bash --norc", "bash --norc -i; true"]


@pytest.mark.parametrize("command", SHELLS)
def test_no_text_ever_reaches_a_bare_shell(world: TmuxWorld, tmp_path: Path, command: str) -> None:
    session = world.start(command)
    eventually(lambda: world.sessions.capture_screen(session))

    outcome = poke(world, session, f"touch {tmp_path}/ran")

    assert outcome.startswith("held: a bare shell (")
    assert "ran" not in world.sessions.capture_screen(session)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_typed_into_the_shell_of_an_ended_agent(world: TmuxWorld, tmp_path: Path) -> None:
    record, program = tmp_path / "record", tmp_path / "agent.py"
    program.write_text(RECORDER)
    session = world.start("exec bash --norc -i")
    eventually(lambda: world.sessions.capture_screen(session))
    started = f"{sys.executable} {program} {record} raw"
    world.tmux.run("send-keys", "-t", session.pane, started, "Enter")
    world.wait_for(record)
    assert poke(world, session, "one") == "delivered"
    eventually(lambda: record.read_bytes() == b"one\r")

    os.kill(process_table.foreground_group(session.pid), signal.SIGKILL)
    eventually(lambda: process_table.foreground_group(session.pid) == session.pid)

    assert poke(world, session, f"touch {tmp_path}/ran") == (
        "held: a bare shell (bash) is in front and would run the text"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", ["script", "option", "pipeline"])
def test_an_agent_that_is_a_shell_program_is_poked(world: TmuxWorld, tmp_path: Path, how: str) -> None:
    body = f'touch {tmp_path}/up; while read -r text; do echo "$text" >> {tmp_path}/got; done'
    script = tmp_path / "agent.sh"
    script.write_text(body + "\n")
    commands = {
        "script": f"exec sh {script}",
        "option": f"exec bash -c '{body}; :'",
        "pipeline": f"exec sh {script} | cat",
    }
    session = world.start(commands[how])
    world.wait_for(tmp_path / "up")

    assert poke(world, session, "hello") == "delivered"
    assert eventually((tmp_path / "got").exists)
    eventually(lambda: (tmp_path / "got").read_text() == "hello\n")


def test_dead_missing_replaced_and_unmanaged_sessions_are_not_poked(
    world: TmuxWorld, recorder: Recorder
) -> None:
    world.start(WHEN_TOLD, "dead")
    (world.folder / "go").touch()
    dead = eventually(lambda: (seen := world.find("dead")) and seen.dead and seen)
    gone = world.start(session="gone")
    world.sessions.end(gone, grace=1.0)
    living, record = recorder()
    world.tmux.run("new-session", "-d", "-s", "foreign", "cat")
    foreign = world.sessions.snapshot()["foreign"]
    assert dead

    assert poke_all(
        world.sessions,
        poke_of(dead, "text"),
        poke_of(gone, "text"),
        poke_of(replace(living, incarnation="an-older-one"), "text"),
        poke_of(foreign, "text"),
    ) == {
        "dead": "held: its program has ended",
        "gone": "failed: the session is gone",
        "recorder": "failed: the session was replaced",
        "foreign": "failed: the session is not managed; adopt it first",
    }
    assert record.read_bytes() == b""


def test_the_server_refuses_a_poke_when_the_pane_changed_after_the_snapshot(
    world: TmuxWorld, recorder: Recorder
) -> None:
    session, record = recorder()

    class Late(Tmux):
        def script(self, lines, **kwargs):  # type: ignore[no-untyped-def]
            if not is_typing(lines := list(lines)):
                return super().script(lines, **kwargs)
            world.tmux.run("set-option", "-p", "-t", session.pane, "@gastown_incarnation", "successor")
            return super().script(lines, **kwargs)

    late = Sessions(Late(world.socket, environ=world.environ))

    assert poke_all(late, poke_of(session, "text"))[session.name].startswith(
        (
            "held: the session changed just now",
            "failed: the session was replaced",
            "held: a person is attached",
        )
    )
    assert record.read_bytes() == b""
    world.tmux.run("set-option", "-p", "-t", session.pane, "@gastown_incarnation", session.incarnation)


def test_a_client_that_attaches_after_the_snapshot_holds_the_poke_in_the_server(
    world: TmuxWorld, recorder: Recorder
) -> None:
    session, record = recorder()
    world.tmux.run("new-window", "-t", session.id, "cat")

    class Late(Tmux):
        def script(self, lines, **kwargs):  # type: ignore[no-untyped-def]
            if not is_typing(lines := list(lines)):
                return super().script(lines, **kwargs)
            with attached(world, session):
                return super().script(lines, **kwargs)

    late = Sessions(Late(world.socket, environ=world.environ))

    assert poke_all(late, poke_of(session, "text"))[session.name].startswith(
        (
            "held: the session changed just now",
            "failed: the session was replaced",
            "held: a person is attached",
        )
    )
    assert record.read_bytes() == b""


TURNS_INTO_A_SHELL = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
open("up", "w").close()
signal.sigwait({signal.SIGUSR1})
os.execvp("bash", ["bash", "--norc", "-i"])
"""


def test_nothing_is_typed_into_a_shell_that_appears_after_the_snapshot(
    world: TmuxWorld, tmp_path: Path
) -> None:
    session = world.start(python(TURNS_INTO_A_SHELL))
    world.wait_for(tmp_path / "up")

    class Late(Tmux):
        def script(self, lines, **kwargs):  # type: ignore[no-untyped-def]
            if not is_typing(lines := list(lines)):
                return super().script(lines, **kwargs)
            os.kill(session.pid, signal.SIGUSR1)
            eventually(lambda: process_table.arguments(session.pid)[:1] == ["bash"])
            return super().script(lines, **kwargs)

    late = Sessions(Late(world.socket, environ=world.environ))

    assert poke_all(late, poke_of(session, "touch ran"))[session.name].startswith(
        ("held: the session changed", "held: a bare shell")
    )
    assert "ran" not in world.sessions.capture_screen(session)


def test_a_stopped_server_is_unknown_and_nothing_is_typed(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()
    hasty = Sessions(Tmux(world.socket, deadline=0.3, environ=world.environ))
    os.kill(session.server, signal.SIGSTOP)
    try:
        with pytest.raises(StateUnknown):
            hasty.poke([poke_of(session, "text")])
    finally:
        os.kill(session.server, signal.SIGCONT)
    assert record.read_bytes() == b""


def test_a_server_that_stops_between_text_and_enter_is_reported(world: TmuxWorld, recorder: Recorder) -> None:
    session, _ = recorder()
    hasty = Sessions(
        Tmux(world.socket, deadline=0.3, environ=world.environ),
        sleep=lambda seconds: os.kill(session.server, signal.SIGSTOP) if seconds == PASTE_PAUSE else None,
    )
    try:
        outcome = poke_all(hasty, poke_of(session, "text"))[session.name]
    finally:
        os.kill(session.server, signal.SIGCONT)

    assert outcome.startswith("failed: the text was typed; what became of it is unknown: tmux did not answer")


@pytest.mark.parametrize(
    "question",
    ["Do you want to proceed?\n❯ 1. Yes\n  2. No", "Overwrite it? [y/N] ", "Go on (y/n)?", "› 2. Always"],
)
def test_an_open_dialog_holds_the_poke(world: TmuxWorld, question: str) -> None:
    session = world.start(python(f"print({question!r}, end='', flush=True); import time; time.sleep(600)"))
    eventually(lambda: question.splitlines()[-1].strip() in world.sessions.capture_screen(session))

    outcome = poke(world, session, "HEARTBEAT")

    assert outcome.startswith(("held: it asks a question: ", "held: its input line is not empty"))
    assert "HEARTBEAT" not in world.sessions.capture_screen(session)


def test_text_that_only_mentions_choices_does_not_hold_the_poke(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()

    assert poke(world, session, "answer [y/N] in the end; 1. this 2. that") == "delivered"
    assert poke(world, session, "and again") == "delivered"

    eventually(lambda: record.read_bytes().endswith(b"and again\r"))
