"""Whoever waits on the command line is told what for."""

import signal

import pytest

from tests.acceptance.daemons import DEADLINE, Place
from tests.acceptance.test_status import frozen, look
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
            eventually(lambda: "accepted, no clerk has read it yet" in process.words(), deadline=DEADLINE)
        eventually(lambda: "received, it waits" in process.words(), deadline=DEADLINE)

    assert process.popen.wait(DEADLINE) == 0, process.words()
    assert "done: started" in process.words()


def test_start_and_stop_say_what_they_wait_for_and_start_ends_with_a_town_that_is_served(
    place: Place,
) -> None:
    started = place.command("start")

    assert started.returncode == 0, started.stderr
    assert look(place)[1].verdict == "running"
    pid = place.holder()
    assert pid
    with frozen(pid):
        stopping = place.python("-m", "gastown_mail", "stop")
        said = f"waiting at most 24 s for the daemon, pid {pid}, to end what it does"
        eventually(lambda: said in stopping.words(), deadline=DEADLINE)
    assert stopping.popen.wait(DEADLINE) == 0, stopping.words()


def test_up_says_that_it_stops_and_how_long_that_may_take(place: Place) -> None:
    up = place.up()

    assert up.stop(signal.SIGINT) == 0
    assert "waiting for its Redis" in up.words().splitlines()[0]
    assert up.words().splitlines()[-2].startswith("stopping: waiting at most 24 s")
    assert up.words().splitlines()[-1].startswith("stopped")
