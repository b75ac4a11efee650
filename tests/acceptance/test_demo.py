"""`gastown-mail demo` as a user runs it: it shows what it promises and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.processes import clean_environ
from tests.support.wait import eventually

PATIENCE = 60.0
"""Seconds for the demo beside other tests; alone it takes about six."""

SHOWN = ["town", "poke", "cycle", "restart", "shutdown", "heartbeat", "stop"]


@contextmanager
def a_demo(*more: str, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo, just started; SIGTERM ends it when a test fails."""
    command = [sys.executable, "-m", "gastown_mail", "demo", "--deadline", f"{PATIENCE:g}", *more]
    demo = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=clean_environ(**environ), start_new_session=True,
    )  # fmt: skip
    try:
        yield demo
    finally:
        demo.terminate()
        demo.communicate(timeout=PATIENCE)


def read_until(demo: "subprocess.Popen[str]", beginning: str) -> str:
    """Return the demo's output up to the line that begins with this text."""
    assert demo.stdout is not None
    lines: list[str] = []
    for line in demo.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return "".join(lines)
    raise AssertionError(f"no line {beginning!r} came: {''.join(lines)}")


def folder_of(output: str) -> Path:
    found = re.search(r"^a town of three agents in (\S+);", output)
    assert found, output
    return Path(found[1])


def naming(folder: Path) -> list[tuple[int, list[str]]]:
    """Return all other processes that have the folder in their arguments or environment."""
    return [
        (process.pid, process.info["cmdline"])
        for process in psutil.process_iter(["cmdline", "environ"])
        if process.pid != os.getpid()
        and str(folder) in f"{process.info['cmdline']} {process.info['environ']}"
    ]


def assert_nothing_left(folder: Path) -> None:
    assert naming(folder) == []
    assert not folder.exists()


def test_it_shows_each_action_and_leaves_nothing() -> None:
    with a_demo() as demo:
        output, _ = demo.communicate(timeout=2 * PATIENCE)

    assert demo.returncode == 0, output
    assert re.findall(r"^ok  (\w+) +\d+ ms  .+$", output, re.MULTILINE) == SHOWN
    assert output.splitlines()[-1] == "ok  left nothing behind: no process, no tmux server, no folder"
    assert_nothing_left(folder_of(output))


def test_the_successor_read_what_its_predecessor_left() -> None:
    with a_demo() as demo:
        output = read_until(demo, "ok  cycle")

    asked, read = re.findall(r"pid (\d+) (?:asked|read)", output)
    assert asked != read
    assert re.search(r"read 'next: merge branch [0-9a-f]{8}'; \d+ ms from request to done", output)


@pytest.mark.parametrize("moment", ["..  town", "..  cycle", "ok  shutdown"])
def test_sigterm_in_the_middle_leaves_nothing(moment: str) -> None:
    with a_demo() as demo:
        output = read_until(demo, moment)
        folder = folder_of(output)
        eventually(lambda: naming(folder), deadline=PATIENCE)
        demo.send_signal(signal.SIGTERM)
        rest, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 128 + signal.SIGTERM, rest
    assert "interrupted; everything was ended and removed" in rest
    assert_nothing_left(folder)


def test_a_failed_step_is_reported_and_leaves_nothing() -> None:
    with a_demo() as demo:
        output = read_until(demo, "ok  town")
        daemon = re.search(r"daemon (\d+) serves", output)
        assert daemon
        os.kill(int(daemon[1]), signal.SIGKILL)
        rest, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 1, rest
    assert re.search(r"^FAILED  expected .+; the daemon ended with -9", rest, re.MULTILINE)
    assert_nothing_left(folder_of(output))


def test_the_environment_of_another_town_does_not_matter(tmp_path: Path) -> None:
    odd = {
        "HOME": str(tmp_path / "missing"),
        "TMPDIR": str(tmp_path / "also" / "missing"),
        "GASTOWN_REDIS_URL": "redis://localhost:1",
        "GASTOWN_TOWN": str(tmp_path),
        "GASTOWN_AGENT": "mayor/",
        "GASTOWN_INCARNATION": "0" * 32,
        "GASTOWN_HEARTBEAT_INTERVAL": "nonsense",
        "TMUX": "/nowhere,1,0",
        "LC_ALL": "C",
    }
    with a_demo(**odd) as demo:
        output, _ = demo.communicate(timeout=2 * PATIENCE)

    assert demo.returncode == 0, output
    assert_nothing_left(folder_of(output))


def test_without_tmux_it_says_so(tmp_path: Path) -> None:
    with a_demo(PATH=str(tmp_path)) as demo:
        output, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 5
    assert "install" in output
    assert "Traceback" not in output
