"""Every kind of error as the user sees it: no traceback, what happened, what to do, the right exit code."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gastown_mail.contracts import errors
from tests.support.agents import MAX, MAXINE, WITNESS
from tests.support.daemon import Daemon
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)

NOBODY = {"GASTOWN_REDIS_URL": "redis://127.0.0.1:1/0"}
NO_TMUX = {"PATH": "/nowhere"}


def toml(daemon: Daemon, text: str) -> None:
    (daemon.root / "town.toml").write_text(text)


def state_file(daemon: Daemon) -> None:
    (daemon.root / "daemon").mkdir(exist_ok=True)
    (daemon.root / "daemon" / "state.json").write_text('{"running": tru')


def persons_session(daemon: Daemon) -> None:
    """Start a session with an agent's name, as a person would."""
    session = daemon.town.roster().agents[MAXINE].session
    socket = daemon.settings.tmux_socket
    subprocess.run(
        ["tmux", "-L", socket, "new-session", "-d", "-s", session, "cat"], env=daemon.environ, check=True
    )


def no_work_dir(daemon: Daemon) -> None:
    shutil.rmtree(daemon.town.roster().agents[WITNESS].work_dir)


def wrong_type(daemon: Daemon) -> None:
    daemon.redis.set(daemon.town.keys.inbox, "hello")


def nothing(daemon: Daemon) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Case:
    """A command of the user and the error it must show; `kind` is the error's class."""

    kind: str
    code: int
    words: tuple[str, ...]
    says: tuple[str, ...]
    before: Callable[[Daemon], None] = nothing
    environ: dict[str, str] = field(default_factory=dict)


HELD = ("another daemon holds this town (pid ", "end it with `gastown-mail stop`")
NO_WORK_DIR = "does not exist; create it, or set work_dir"
A_STATE = ("state.json", "repair the file, or move it away")

STOPPED = [
    Case("GastownError", 1, ("logs",), ("there is no log at", "`gastown-mail up` or `start` writes it")),
    Case("SettingsError", 2, ("status",), ("town.toml, line 2: not valid TOML",),
         lambda daemon: toml(daemon, "[daemon]\nworkers =\n")),
    Case("SettingsError", 2, ("up",), ("line 2: [daemon] wokers is not a setting; did you mean workers?",),
         lambda daemon: toml(daemon, "[daemon]\nwokers = 2\n")),
    Case("SettingsError", 2, ("agents",), ("[daemon] workers = 0: expected a whole number from 1 to 64",),
         lambda daemon: toml(daemon, "[daemon]\nworkers = 0\n")),
    Case("SettingsError", 2, ("requests",), ("GASTOWN_EVENTS_KEPT", "expected a whole number"),
         environ={"GASTOWN_EVENTS_KEPT": "some"}),
    Case("SettingsError", 2, ("--town", "/nowhere", "status"), ("/nowhere", "expected a folder that")),
    Case("SettingsError", 2, ("send", "explode"), ("is not an action: expected cycle, restart or shutdown",),
         environ={"GASTOWN_AGENT": MAX}),
    Case("AddressError", 1, ("requests", "--agent", "norig/witness"),
         ("this town has no rig norig; its rigs are gastown",)),
    Case("StateFileError", 1, ("up",), A_STATE, state_file),
    Case("RedisUnavailable", 3, ("requests",), ("127.0.0.1:1", "check that it runs"), environ=NOBODY),
    Case("RedisUnavailable", 3, ("dead",), ("is not reachable", "own server: gastown-mail up or start")),
    Case("RequestNotAccepted", 3, ("send", "cycle", "--agent", MAX),
         ("the request was not accepted", "check that it runs"), environ=NOBODY),
    Case("TmuxMissing", 5, ("up",), ("tmux is not on the PATH: install it",), environ=NO_TMUX),
    Case("TmuxMissing", 5, ("start",), ("tmux is not on the PATH: install it",), environ=NO_TMUX),
    Case("usage", 2, ("poke",), ("Missing argument 'AGENT'", "--help")),
    Case("usage", 2, ("frobnicate",), ("No such command 'frobnicate'", "--help")),
    Case("OSError", 1, ("init", "town.toml/x"), ("refused: Not a directory: town.toml/x", "try again")),
]  # fmt: skip

SERVED = [
    Case("TownLocked", 4, ("up",), HELD),
    Case("TownLocked", 4, ("start",), HELD),
    Case("SessionNotManaged", 1, ("poke", MAXINE, "hello"), ("adopt",), persons_session),
    Case("StartFailed", 1, ("run", WITNESS), ("the work dir", NO_WORK_DIR), no_work_dir),
    Case("GastownError", 1, ("requests", "nobody-s"), ("there is no request nobody-s", "gastown-mail inbox")),
    Case("GastownError", 1, ("dead", "drop", "nobody-s"), ("no dead letter nobody-s; `gastown-mail dead`",)),
    Case("GastownError", 1, ("attach", MAX), ("has no session; gastown-mail run",)),
    Case("GastownError", 1, ("inbox",), ("WRONGTYPE", "find it with redis-cli TYPE"), wrong_type),
]  # fmt: skip

HIDDEN = {
    "InvalidRequest": "it becomes a dead letter: see test_an_invalid_element_is_a_dead_letter",
    "StateUnknown": "see test_a_tmux_that_does_not_answer_is_named",
    "Postponed": "workers raise it: see test_while_the_whole_town_is_paused_requests_wait",
    "ProcessesSurvived": "no test can make a process that survives SIGKILL",
}


def check(case: Case, daemon: Daemon) -> None:
    case.before(daemon)

    done = daemon.command(*case.words, environ=case.environ)

    assert done.returncode == case.code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for text in case.says:
        assert text in done.stderr, done.stderr


@pytest.mark.parametrize("case", STOPPED, ids=lambda case: f"{case.kind}-{' '.join(case.words)}")
def test_an_error_without_a_daemon(daemon: Daemon, case: Case) -> None:
    check(case, daemon)


def test_errors_while_a_daemon_runs(daemon: Daemon) -> None:
    up = daemon.up()
    for case in SERVED:
        check(case, daemon)
    assert not up.has_ended()


def test_every_error_class_and_exit_code_is_tested() -> None:
    family = {name for name, each in vars(errors).items() if isinstance(each, type)}
    cases = [*STOPPED, *SERVED]

    assert family <= {case.kind for case in cases} | set(HIDDEN)
    for case in cases:
        kind = getattr(errors, case.kind, errors.GastownError)
        assert case.kind == "usage" or kind.exit_code == case.code
    assert {case.code for case in cases} == {1, 2, 3, 4, 5}, (
        "0 and 6 are exit codes of doctor, 3 and 4 of status"
    )


def test_a_tmux_that_does_not_answer_is_named(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    server = daemon.tmux_pid()
    os.kill(server, signal.SIGSTOP)
    try:
        done = daemon.command("attach", MAX)
    finally:
        os.kill(server, signal.SIGCONT)

    assert done.returncode == 1
    assert done.stderr.startswith("gastown-mail: tmux did not answer within 5 s")
    assert "try again later" in done.stderr


def test_an_invalid_element_is_a_dead_letter(daemon: Daemon) -> None:
    daemon.up()
    daemon.redis.rpush(daemon.town.keys.inbox, '{"from": "mayor/", "action": "explode"}')

    [letter] = eventually(lambda: daemon.document("dead"), deadline=DEADLINE)

    assert "expected cycle, restart or shutdown" in letter["detail"]
    assert daemon.command("dead", "drop", letter["id"]).returncode == 0


def test_a_refused_request_tells_the_waiting_sender_why(daemon: Daemon) -> None:
    daemon.up()
    no_work_dir(daemon)

    done = daemon.command("send", "restart", "--agent", "operator", "--to", WITNESS, "--wait", "60")

    assert done.returncode == 1
    assert NO_WORK_DIR in done.stderr


@contextmanager
def piped(daemon: Daemon, *words: str, stdout: int) -> Iterator["subprocess.Popen[str]"]:
    """Run a command with its output to `stdout`; it is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", *words], env=daemon.environ, cwd=daemon.root, stdout=stdout,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_closed_pipe_ends_the_command_silently(daemon: Daemon) -> None:
    daemon.up()
    with piped(daemon, "events", "-n", "1000", "-f", stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        # There is a heartbeat every two seconds.
        assert process.wait(DEADLINE) == 1
        assert process.stderr
        assert process.stderr.read() == ""


def test_a_full_disk_is_named(daemon: Daemon) -> None:
    for words in (("--help",), ("init", "."), ("doctor", "--json")):
        with Path("/dev/full").open("w") as full, piped(daemon, *words, stdout=full.fileno()) as process:
            _, said = process.communicate(timeout=DEADLINE)
            assert process.returncode == 1
            assert said == (
                "gastown-mail: the system refused: No space left on device; "
                "free some space, or correct the path or its permissions, and try again\n"
            )


def test_ctrl_c_ends_the_command_silently(daemon: Daemon) -> None:
    daemon.up()
    for words in (
        ("events", "-f"),
        ("logs", "-f"),
        ("send", "cycle", "--agent", WITNESS, "--wait", "60"),
    ):
        if words[0] == "send":
            daemon.command("pause", "--all")
        with piped(daemon, *words, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            assert process.stderr
            assert "Traceback" not in process.stderr.read()


WEAK = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
"""A prefix that takes root's right to read everything."""


def can_be_weak() -> bool:
    try:
        return subprocess.run([*WEAK, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_be_weak(), reason="root may read everything")
def test_an_unreadable_folder_is_named(daemon: Daemon) -> None:
    folder = daemon.root / "daemon"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o000)
    try:
        for words in (("status",), ("stop",), ("logs",), ("up",), ("start",), ("doctor",)):
            done = subprocess.run(
                [*WEAK, sys.executable, "-m", "gastown_mail", *words], env=daemon.environ, cwd=daemon.root,
                capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip

            assert done.returncode in {1, 2, 6}, words
            assert "Traceback" not in done.stderr
            assert str(folder) in done.stderr + done.stdout, words
    finally:
        folder.chmod(0o755)


def test_a_tmux_socket_with_too_long_a_path_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    refused = daemon.command("start", environ={"TMUX_TMPDIR": str(deep)})

    assert refused.returncode == 2
    assert "set tmux_socket in town.toml to a shorter path, or choose a shorter TMUX_TMPDIR" in refused.stderr
