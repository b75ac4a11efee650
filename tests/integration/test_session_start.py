"""Starting a session: once, in a clean environment, with unchanged values, and checked to stay."""

import os
import signal
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import StartFailed, StateUnknown
from gastown_mail.sessions import commands
from gastown_mail.sessions.processes import with_incarnation
from gastown_mail.sessions.session import _STARTUP_CHECK, Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from tests.integration.tmux_world import TmuxWorld, python
from tests.support.wait import eventually

NASTY = "~a; b 'c' \"d\" $HOME ${HOME} #{pid} #(touch pwned) ##[x] \\ \\n {e} é🙂\t\x01\n  # no comment\nend;"
SHOW_ENVIRONMENT = "env -0 > env.part && mv env.part env && exec sleep 600"


def environment(world: TmuxWorld, folder: Path) -> dict[str, str]:
    text = world.wait_for(folder / "env").read_text()
    return dict(entry.split("=", 1) for entry in text.split("\0") if entry)


def test_a_started_session_is_what_the_snapshot_shows(world: TmuxWorld) -> None:
    started = world.start(token=(token := world.token()), generation=7)
    eventually(lambda: (seen := world.find(started.name)) and seen.foreground == "sleep")
    session = replace(started, foreground="sleep")

    assert world.sessions.snapshot() == {session.name: session}
    assert world.find(session.name) == session
    assert (session.incarnation, session.generation, session.dead) == (token, 7, False)
    assert (session.name, session.agent) == ("gt-rig-crew-max", "rig/crew/gt-rig-crew-max")
    assert (session.attached, session.in_mode, session.exit_status) == (0, False, None)
    assert session.foreground == "sleep"
    assert abs((session.started_at - session.activity).total_seconds()) < 5


def test_the_program_has_the_token_and_no_placeholder_remains(world: TmuxWorld) -> None:
    session = world.start()

    assert {process.pid for process in with_incarnation(session.incarnation)} == {session.pid}


def test_values_arrive_unchanged(world: TmuxWorld, tmp_path: Path) -> None:
    folder = tmp_path / NASTY.replace("/", "")
    folder.mkdir()
    program = "import os, sys; open('got', 'w').write(os.getcwd() + chr(0) + sys.argv[1]); input()"

    world.start(python(program, NASTY), work_dir=folder)
    world.start(SHOW_ENVIRONMENT, "second", work_dir=tmp_path, environ={"NASTY": NASTY, "E": "=", "F": ""})

    assert eventually(world.wait_for(folder / "got").read_text) == f"{folder}\0{NASTY}"
    got = environment(world, tmp_path)
    assert (got["NASTY"], got["E"], got["F"]) == (NASTY, "=", "")
    assert list(tmp_path.rglob("pwned")) == []


def test_a_work_dir_behind_a_link_keeps_its_name(world: TmuxWorld, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    world.start(SHOW_ENVIRONMENT, work_dir=tmp_path / "link")

    assert environment(world, tmp_path / "real")["PWD"] == str(tmp_path / "link")


DIRT = {
    "SECRET": "1",
    "GASTOWN_INCARNATION": "of-another",
    "GASTOWN_HANDOFF": "/of/another.md",
    "TMUX": "/tmp/of-another,1,0",
    "TMUX_PANE": "%77",
    "CLAUDECODE": "1",
    "MULTI": "line\nFORGED=1\n=odd\n-odd=1",
    "BASH_FUNC_x%%": "() {  echo x\n}",
}


@pytest.mark.parametrize("first", ["we", "somebody else"])
def test_no_variable_of_the_starter_reaches_the_session(
    world: TmuxWorld, tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in DIRT.items():
        monkeypatch.setenv(name, value)
    dirty = {**os.environ, **DIRT}
    if first != "we":
        subprocess.run(
            ["tmux", "-L", world.socket, "new-session", "-d", "-s", "mine", "cat"],
            env={key: value for key, value in dirty.items() if key != "TMUX"},
            check=True,
        )
    world.sessions = Sessions(Tmux(world.socket, environ=dirty))

    session = world.start(SHOW_ENVIRONMENT, work_dir=tmp_path, environ={"GT_ROLE": "crew"})
    if first == "we":
        assert "SECRET" not in world.tmux.run("show-environment", "-g")

    got = environment(world, tmp_path)
    assert got["GASTOWN_INCARNATION"] == session.incarnation
    assert got["GT_ROLE"] == "crew"
    assert got["TMUX"].startswith(f"{session_socket(world)},{session.server},")
    assert got["TMUX_PANE"] == session.pane
    assert got.keys() & (DIRT.keys() - {"GASTOWN_INCARNATION", "TMUX", "TMUX_PANE"}) == set()
    allowed = {"HOME", "PATH", "SHELL", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TMUX_TMPDIR"}
    own = {
        "GASTOWN_INCARNATION",
        "GT_ROLE",
        "PWD",
        "OLDPWD",
        "TERM",
        "TERM_PROGRAM",
        "TERM_PROGRAM_VERSION",
        "_",
    }
    rest = {key for key in got.keys() - allowed - own if not key.startswith("LC_")}
    assert rest <= {"TMUX", "TMUX_PANE", "XDG_RUNTIME_DIR", "COLORTERM", "SHLVL"}


def session_socket(world: TmuxWorld) -> str:
    return world.tmux.run("display-message", "-p", "#{socket_path}").strip()


def test_a_window_that_is_opened_later_is_as_clean(world: TmuxWorld, tmp_path: Path) -> None:
    subprocess.run(
        ["tmux", "-L", world.socket, "new-session", "-d", "-s", "mine", "cat"],
        env={**os.environ, "SECRET": "1"},
        check=True,
    )
    session = world.start(work_dir=tmp_path)

    world.tmux.run("new-window", "-d", "-t", session.id, "-c", str(tmp_path), SHOW_ENVIRONMENT)

    got = environment(world, tmp_path)
    assert "SECRET" not in got
    assert got["GASTOWN_INCARNATION"] == session.incarnation


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "POSIX"}])
def test_utf8_works_without_a_locale(world: TmuxWorld, tmp_path: Path, locale: dict[str, str]) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "TMUX_TMPDIR") if name in os.environ}
    bare = {"HOME": str(tmp_path), **kept, **locale}
    world.sessions = Sessions(Tmux(world.socket, environ=bare))

    session = world.start(python("import sys; print(sys.stdout.encoding, 'grüße 🙂', flush=True); input()"))

    eventually(lambda: world.sessions.capture_screen(session).lower() == "utf-8 grüße 🙂")


def test_a_generation_starts_once(world: TmuxWorld) -> None:
    first = world.start(generation=5)
    world.sessions.end(first, grace=1.0)

    for generation in (5, 4, 1):
        with pytest.raises(StartFailed, match="not newer than the last one started"):
            world.start(generation=generation)
    assert world.sessions.snapshot() == {}
    assert world.start(generation=6).generation == 6


def test_a_late_copy_of_a_start_does_nothing_to_the_live_session(world: TmuxWorld) -> None:
    living = world.start(generation=5)

    with pytest.raises(StartFailed, match="generation 5"):
        world.start(generation=5)
    assert world.living() == {living.name: living.incarnation}


def test_generations_are_counted_for_each_session(world: TmuxWorld) -> None:
    world.start(session="one", generation=10**15)

    assert world.start(session="two", generation=1).generation == 1
    assert world.start(session="one-two", generation=1).generation == 1


def test_an_existing_session_of_that_name_is_not_touched(world: TmuxWorld) -> None:
    living = world.start(generation=5)

    with pytest.raises(StartFailed, match="duplicate session"):
        world.start(generation=6)
    assert world.living() == {living.name: living.incarnation}
    assert len(with_incarnation(living.incarnation)) == 1


def test_twenty_starts_at_once_are_one_session(world: TmuxWorld) -> None:
    done: list[Session] = []
    failed: list[str] = []

    def start() -> None:
        try:
            done.append(world.start(generation=1))
        except StartFailed as error:
            failed.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(done), len(failed)) == (1, 19)
    assert world.living() == {done[0].name: done[0].incarnation}
    assert [token for token in world.tokens if with_incarnation(token)] == [done[0].incarnation]


def test_a_start_that_a_stopped_server_takes_later_is_still_one_start(world: TmuxWorld) -> None:
    other = world.start(session="other")
    hasty = Sessions(Tmux(world.socket, deadline=0.3, environ=world.environ))
    os.kill(other.server, signal.SIGSTOP)
    try:
        with pytest.raises(StateUnknown):
            hasty.start(
                world.agent("late"),
                incarnation=world.token(),
                generation=1,
                environ={},
                command="exec sleep 60",
            )
    finally:
        os.kill(other.server, signal.SIGCONT)

    if world.find("late") is None:
        world.start(session="late", generation=2)
    assert sorted(world.sessions.snapshot()) == ["late", "other"]


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("echo out of tokens; exit 3", "status 3", "out of tokens"),
        ("exec no-such-binary-at-all", "status 127", "no-such-binary-at-all"),
        ("kill -9 $$", "status 137", "signal 9"),
    ],
)
def test_a_command_that_ends_at_once_is_a_failed_start_and_leaves_nothing(
    world: TmuxWorld, command: str, status: str, words: str
) -> None:
    def failure() -> str:
        with pytest.raises(StartFailed, match=f"ended at once with {status}") as caught:
            world.start(command)
        assert world.sessions.snapshot() == {}
        return str(caught.value)

    # tmux now and then loses the last output of a program that ends at once.
    eventually(lambda: words in failure())


def test_a_command_that_ends_during_the_startup_check_is_a_failed_start(world: TmuxWorld) -> None:
    with pytest.raises(StartFailed, match="ended at once with status 4"):
        world.start(f"sleep {_STARTUP_CHECK / 2}; exit 4")


def test_a_command_that_ends_after_the_startup_check_was_started(world: TmuxWorld) -> None:
    session = world.start(f"sleep {_STARTUP_CHECK * 2}; exit 4")

    eventually(lambda: (seen := world.find(session.name)) and seen.dead)


def test_background_processes_of_a_failed_start_end(world: TmuxWorld) -> None:
    with pytest.raises(StartFailed):
        world.start("setsid sleep 600 & exit 1")

    assert with_incarnation(world.tokens[-1]) == set()


def test_a_missing_work_dir_is_noticed_and_nothing_is_started(world: TmuxWorld, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for missing in ("gone", "file"):
        with pytest.raises(StartFailed, match=f"work dir .* cannot be entered: .*{missing}"):
            world.start(work_dir=tmp_path / missing)
    assert world.sessions.snapshot() == {}


def test_a_work_dir_that_only_the_server_cannot_enter_ends_the_start(
    world: TmuxWorld, tmp_path: Path
) -> None:
    agent = world.agent("lost", work_dir=tmp_path / "gone-in-between")
    spec = commands.SessionSpec(agent, world.token(), 1, datetime.now(UTC), "exec sleep 600")
    world.tmux.run(*commands.start_server())

    assert world.tmux.script([commands.new_session(spec, [])], cwd=tmp_path).lines == ["started"]

    session = eventually(lambda: (seen := world.sessions.with_token(world.tokens[-1])) and seen.dead and seen)
    assert session
    assert session.incarnation == world.tokens[-1]


@pytest.mark.parametrize(
    ("session", "environ", "command"),
    [
        ("a:b", {}, "x"),
        ("a.b", {}, "x"),
        ("", {}, "x"),
        ("fine", {"A=B": "1"}, "x"),
        ("fine", {"": "1"}, "x"),
        ("fine", {"A": "\0"}, "x"),
        ("fine", {}, "x\0"),
    ],
)
def test_values_that_could_not_arrive_exactly_are_refused(
    world: TmuxWorld, session: str, environ: dict[str, str], command: str
) -> None:
    with pytest.raises(StartFailed, match="cannot be started"):
        world.start(command, session, environ=environ)
    assert world.tmux.calls == 0


def test_a_start_takes_few_processes_and_little_time(world: TmuxWorld) -> None:
    world.start(session="first")
    before = world.tmux.calls

    world.start(session="second")

    assert world.tmux.calls - before <= 5
