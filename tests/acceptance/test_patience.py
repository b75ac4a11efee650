"""A command that waits says what it waits for."""

import signal

import pytest

from tests.acceptance.daemons import DEADLINE, Place
from tests.acceptance.test_status import frozen
from tests.integration.stage import MAX
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("words", [("run", MAX), ("poke", MAX, "hello")])
def test_poke_and_run_say_that_they_wait_for_a_worker(place: Place, words: tuple[str, ...]) -> None:
    place.up()
    place.run(MAX)
    workers = [pid for name, pid in place.children().items() if name.startswith("lifecycle")]

    with frozen(*workers):
        process = place.python("-m", "gastown_mail", *words)
        eventually(lambda: "waiting at most 30 s for a worker" in process.words(), deadline=DEADLINE)

    assert process.popen.wait(DEADLINE) == 0, process.words()


def test_send_says_where_the_request_stands(place: Place) -> None:
    place.up()
    place.run(MAX)
    children = place.children()

    with frozen(*(pid for name, pid in children.items() if name.startswith("lifecycle"))):
        with frozen(children["clerk"]):
            process = place.python(
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


def test_start_ends_when_nobody_is_missing_any_more(place: Place) -> None:
    process = place.python("-W", "ignore", "-c", START_AND_LOOK)

    assert process.popen.wait(DEADLINE) == 0, process.words()
    assert process.words().splitlines()[-1] == "[]"


def test_stop_says_that_it_waits_for_the_daemon(place: Place) -> None:
    assert place.command("start").returncode == 0
    pid = place.holder()
    assert pid
    with frozen(pid):
        stopping = place.python("-m", "gastown_mail", "stop")
        said = f"waiting at most 24 s for the daemon, pid {pid}, to end"
        eventually(lambda: said in stopping.words(), deadline=DEADLINE)
    assert stopping.popen.wait(DEADLINE) == 0, stopping.words()


def test_up_says_that_it_stops_and_how_long_that_may_take(place: Place) -> None:
    up = place.up()

    assert up.stop(signal.SIGINT) == 0
    assert "waiting for its Redis" in up.words().splitlines()[0]
    assert up.words().splitlines()[-2].startswith("stopping: waiting at most 24 s")
    assert up.words().splitlines()[-1].startswith("stopped")
