"""A process may be killed at any failpoint: each request is still done, once, and does no harm."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gastown_mail.plumbing.failpoints import FAILPOINTS, failpoint
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.session import Session
from tests.support.agents import MAX, MAXINE, a_crew
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.processes import clean_environ
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(240)

WITH_SUCCESSOR = {"successor-announced", "session-started", "start-noted"}
WITH_HANDOFF = {"handoff-written"}


class Mine:
    """A daemon that dies at one failpoint, once each time the mine is laid."""

    def __init__(self, daemon: Daemon, file: Path) -> None:
        self.daemon, self._file = daemon, file

    def lay(self) -> None:
        self._file.unlink(missing_ok=True)

    @property
    def went_off(self) -> bool:
        return self._file.exists()


@pytest.fixture
def mine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mine]:
    file = tmp_path / "died"
    file.touch()
    with a_running_daemon(a_crew(), GASTOWN_FAIL_AT=f"{request.param}@{file}") as daemon:
        yield Mine(daemon, file)


def is_passed(point: str, action: str) -> bool:
    """True if a request with this action reaches this point."""
    if point in WITH_HANDOFF:
        return action == "cycle"
    return action != "shutdown" or point not in WITH_SUCCESSOR


def ended_for_good(before: Session) -> bool:
    return (
        processes.with_incarnation(before.incarnation) == set()
        and process_table.read_process(before.pid) is None
    )


def sessions_of_max(daemon: Daemon) -> list[Session]:
    return [s for s in daemon.town.sessions.snapshot().values() if s.agent == MAX]


def carry_out(mine: Mine, action: str, before: Session) -> None:
    """Send a request during which a process is killed; it must be done."""
    handoff = {"handoff": "next: merge #12"} if action == "cycle" else {}
    mine.lay()
    ident = mine.daemon.ask(action, incarnation=before.incarnation, **handoff)
    assert mine.daemon.outcome(ident) == "done"


def assert_one_successor(daemon: Daemon, before: Session, earlier: list[str], handoff: str) -> Session:
    after = eventually(lambda: daemon.started(MAX))
    assert after is not None
    assert after.incarnation != before.incarnation
    assert daemon.starts(MAX) == [*earlier, after.incarnation], "started exactly once"
    assert len(sessions_of_max(daemon)) == 1
    assert eventually(lambda: daemon.work("handoff").read_text() == handoff or None)
    return after


@pytest.mark.parametrize("mine", FAILPOINTS, indirect=True, ids=FAILPOINTS)
def test_a_kill_at_this_point_costs_nothing(mine: Mine, request: pytest.FixtureRequest) -> None:
    point, daemon = request.node.callspec.params["mine"], mine.daemon
    bystander, before = daemon.run(MAXINE), daemon.run(MAX)

    for action in ("cycle", "restart", "shutdown"):
        earlier = daemon.starts(MAX)
        carry_out(mine, action, before)

        # the outcome can be seen a moment before the point is passed
        if is_passed(point, action):
            eventually(lambda: mine.went_off)
        else:
            assert not mine.went_off, f"{action} at {point}"
        assert ended_for_good(before), action
        if action == "shutdown":
            assert sessions_of_max(daemon) == []
            assert daemon.starts(MAX) == earlier
        else:
            handoff = "next: merge #12" if action == "cycle" else ""
            before = assert_one_successor(daemon, before, earlier, handoff)

    assert daemon.session(MAXINE) is not None
    assert daemon.started(MAXINE) == bystander
    assert daemon.town.requests.unsettled() == {}
    assert daemon.town.redis.llen(daemon.town.keys.taken) == 0
    assert b"GASTOWN_FAIL_AT" not in process_table.environment(bystander.pid), (
        "the failpoint does not reach the agents"
    )


def test_every_point_is_passed_by_a_cycle_with_handoff() -> None:
    assert all(is_passed(point, "cycle") for point in FAILPOINTS)


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_failpoint_kills_only_where_it_is_set(point: str) -> None:
    failpoint(point, {})
    failpoint(point, {"GASTOWN_FAIL_AT": ""})
    failpoint(point, {"GASTOWN_FAIL_AT": f"{point}-not"})


@pytest.mark.parametrize("point", FAILPOINTS)
def test_no_point_is_on_by_default(point: str) -> None:
    code = f"from gastown_mail.plumbing.failpoints import failpoint; failpoint({point!r}); print('alive')"

    def run(**environ: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environ(**environ),
            timeout=30, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    assert run() == (0, "alive\n")
    assert run(GASTOWN_FAIL_AT=point) == (-9, "")
