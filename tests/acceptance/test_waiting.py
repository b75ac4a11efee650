"""A command that waits says what it waits for."""

import signal

import pytest

from tests.support.agents import MAX
from tests.support.daemon import Daemon
from tests.support.processes import stopped
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("words", [("run", MAX), ("poke", MAX, "hello")])
def test_poke_and_run_say_that_they_wait_for_a_worker(daemon: Daemon, words: tuple[str, ...]) -> None:
    daemon.up()
    daemon.run(MAX)
    workers = [pid for name, pid in daemon.children().items() if name.startswith("lifecycle")]

    with stopped(*workers):
        process = daemon.python("-m", "gastown_mail", *words)
        eventually(lambda: "waiting at most 30 s for a worker" in process.words(), deadline=DEADLINE)

    assert process.popen.wait(DEADLINE) == 0, process.words()


def test_send_shows_the_requests_progress(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    children = daemon.children()

    with stopped(*(pid for name, pid in children.items() if name.startswith("lifecycle"))):
        with stopped(children["clerk"]):
            process = daemon.python(
                "-m", "gastown_mail", "send", "restart", "--agent", MAX, "--wait", str(DEADLINE)
            )
            eventually(
                lambda: "accepted, the clerk has not read it yet" in process.words(), deadline=DEADLINE
            )
        eventually(lambda: "received, it waits" in process.words(), deadline=DEADLINE)

    assert process.popen.wait(DEADLINE) == 0, process.words()
    assert "done: started" in process.words()


START_AND_LOOK = """
import os
from pathlib import Path
from gastown_mail.cli.daemon import start_in_background
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.health import missing_workers
from gastown_mail.contracts.settings import load_settings
settings = load_settings(Path.cwd(), environ=os.environ)
start_in_background(settings)
print(missing_workers(StatusCollector(settings).report()))
"""


def test_start_returns_when_no_part_is_missing(daemon: Daemon) -> None:
    process = daemon.python("-W", "ignore", "-c", START_AND_LOOK)

    assert process.popen.wait(DEADLINE) == 0, process.words()
    assert process.words().splitlines()[-1] == "[]"


def test_stop_says_that_it_waits_for_the_daemon(daemon: Daemon) -> None:
    assert daemon.command("start").returncode == 0
    pid = daemon.holder()
    assert pid
    with stopped(pid):
        stopping = daemon.python("-m", "gastown_mail", "stop")
        said = f"waiting at most 24 s for the daemon, pid {pid}, to end"
        eventually(lambda: said in stopping.words(), deadline=DEADLINE)
    assert stopping.popen.wait(DEADLINE) == 0, stopping.words()


def test_up_says_that_it_stops_and_how_long_that_may_take(daemon: Daemon) -> None:
    up = daemon.up()

    assert up.stop(signal.SIGINT) == 0
    assert "waiting for its Redis" in up.words().splitlines()[0]
    assert up.words().splitlines()[-2].startswith("stopping: waiting at most 24 s")
    assert up.words().splitlines()[-1].startswith("stopped")
