"""A town in containers: up, in use, scaled, killed, restarted, stopped, up again.

The tests share one town and run in this order; each leaves it running.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from gastown_mail import send_lifecycle
from gastown_mail.contracts.go_formats import parse_duration
from gastown_mail.contracts.lifecycle import FINAL_STATUSES
from gastown_mail.contracts.settings import load_settings
from gastown_mail.daemon import schedule, supervisor
from gastown_mail.town import queues
from gastown_mail.town.roster import load_roster
from tests.compose.stack import REPOSITORY, SLOW, Stack, all_alive, free_port
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(400)

SAMPLE = ("demo/crew/ada", "demo/crew/max", "demo/witness")
MAX, MAX_SESSION, SLOW_SESSION = "demo/crew/max", "gt-demo-crew-max", "gt-demo-crew-slow"
STOP_LIMIT = 20.0


def test_the_first_up_makes_a_town_with_living_agents(stack: Stack) -> None:
    all_alive(stack, *SAMPLE)
    assert stack.state["running"] is True
    eventually(lambda: stack.state["heartbeat_count"] >= 1, deadline=60.0, step=0.5)
    stack.inside("worker", "gastown-mail", "status")


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = (
        stack.incarnations(),
        stack.containers("town"),
        stack.containers("worker"),
        stack.password("daemon"),
    )
    stack.up()
    after = (
        stack.incarnations(),
        stack.containers("town"),
        stack.containers("worker"),
        stack.password("daemon"),
    )
    assert after == before


def test_a_request_from_the_town_container(stack: Stack) -> None:
    before = stack.incarnations()[MAX_SESSION]
    request = stack.send("cycle", MAX, "--wait", "10")
    assert stack.status(request) == "done"
    assert stack.incarnations()[MAX_SESSION] != before


def test_a_request_from_the_host(stack: Stack) -> None:
    before = stack.incarnations()[MAX_SESSION]
    receipt = send_lifecycle(
        "restart", agent="operator", to=MAX, redis_url=stack.url("agent"), town="town", environ={}
    )
    assert receipt.wait(10) == "done"
    assert stack.incarnations()[MAX_SESSION] != before


@pytest.mark.parametrize("service", ["worker", "scheduler"])
def test_rq_info_needs_no_arguments(stack: Stack, service: str) -> None:
    said = stack.inside(service, "rq", "info")
    assert "gastown-town-town-lifecycle" in said
    assert "3 workers, 2 queues" in said


def test_rq_info_from_the_host_as_documented(stack: Stack) -> None:
    text = (REPOSITORY / "docs/how-to/compose.md").read_text()
    start = text.index("RQ_REDIS_URL=")
    command = text[start : text.index("\n\n", start)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "-c", command], cwd=stack.folder, env={**stack.environ, "PATH": path},
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert "3 workers, 2 queues" in said


def test_the_dashboard(stack: Stack) -> None:
    port = free_port()
    stack.more = {**stack.more, "GASTOWN_DASHBOARD_PORT": str(port)}
    stack.compose("--profile", "dashboard", "up", "-d", "--wait", timeout=300)
    for page in ("queues", "workers", "jobs/gastown-town-town-lifecycle/finished/8/asc/1"):
        with urlopen(f"http://127.0.0.1:{port}/0/data/{page}.json", timeout=10) as answer:
            assert b"gastown-town-town-lifecycle" in answer.read(), page
    stack.compose("--profile", "dashboard", "rm", "--stop", "--force", "dashboard")


def test_four_workers_share_the_work(stack: Stack) -> None:
    stack.up("--scale", "worker=4")
    assert len(stack.containers("worker")) == 4
    workers = stack.inside("worker", "rq", "info", "--raw", "--only-workers")
    assert workers.count("gastown-town-town-lifecycle") == 8
    before = stack.incarnations()
    asked = [stack.send("restart", agent) for agent in SAMPLE]
    eventually(lambda: {stack.status(one) for one in asked} <= FINAL_STATUSES, deadline=30.0, step=0.5)
    assert [stack.status(one) for one in asked] == ["done"] * len(SAMPLE)
    after = stack.incarnations()
    assert not set(before.values()) & set(after.values())


def test_fewer_workers_still_serve(stack: Stack) -> None:
    stack.up("--scale", "worker=1")
    # The worker that kept the town's state may be gone; another one takes over.
    eventually(lambda: "true" in stack.state_line("running"), deadline=10.0, step=0.2)
    assert stack.status(stack.send("restart", MAX, "--wait", "20")) == "done"
    stack.up("--scale", "worker=4")


def test_workers_killed_mid_cycle(stack: Stack) -> None:
    stack.inside("worker", "gastown-mail", "run", SLOW)
    before = stack.incarnations()
    request = stack.send("cycle", SLOW, "--handoff", "half done")
    eventually(lambda: stack.status(request) == "carrying", deadline=10.0, step=0.1)
    stack.compose("kill", "--signal", "SIGKILL", "worker")
    assert stack.incarnations() == before
    stack.up("--scale", "worker=1")
    eventually(lambda: stack.status(request) in FINAL_STATUSES, deadline=60.0, step=0.5)
    assert stack.status(request) == "done"
    after = stack.incarnations()
    assert after.pop(SLOW_SESSION) != before.pop(SLOW_SESSION)
    assert after == before
    assert stack.inside("town", "pgrep", "-cf", "trap '' TERM").strip() == "1"


@pytest.mark.parametrize("services", ["redis", "scheduler", "worker", "redis worker scheduler"])
def test_a_restart_ends_no_session(stack: Stack, services: str) -> None:
    all_alive(stack, *SAMPLE)
    before = stack.incarnations()
    stack.compose("restart", *services.split(), timeout=200)
    stack.up()
    assert stack.incarnations() == before
    request = stack.send("restart", MAX, "--wait", "20")
    assert stack.status(request) == "done"
    known = {row["session"] for row in stack.mail("agents") if row["observed"] == "alive"}
    assert known == set(before)


def test_a_restart_of_the_town_starts_its_agents_again(stack: Stack) -> None:
    before = stack.incarnations()
    stack.compose("restart", "town", timeout=200)
    stack.up()
    for agent in (*SAMPLE, SLOW):
        # Several starts within a minute would wait for the end of their back-off.
        stack.inside("worker", "gastown-mail", "clear", agent)
    all_alive(stack, *SAMPLE)
    assert not set(before.values()) & set(stack.incarnations().values())


def test_a_stop_is_quick_and_loses_no_request(stack: Stack) -> None:
    stack.inside("worker", "gastown-mail", "run", SLOW)
    asked = [stack.send("restart", agent) for agent in (SLOW, MAX, SLOW, "demo/witness")]
    started = time.monotonic()
    stack.compose("stop", timeout=100)
    assert time.monotonic() - started < STOP_LIMIT
    assert "false" in stack.state_line("running")
    stack.up()
    assert "true" in stack.state_line("running")
    eventually(lambda: {stack.status(one) for one in asked} <= FINAL_STATUSES, deadline=60.0, step=0.5)
    assert {stack.status(one) for one in asked} <= {"done", "superseded"}


def test_redis_keeps_what_it_has_through_down_and_up(stack: Stack) -> None:
    request = stack.send("restart", MAX, "--wait", "20")
    secret = stack.password("agent")
    stack.compose("down", timeout=100)
    assert "false" in stack.state_line("running")
    stack.up()
    assert stack.status(request) == "done"
    assert stack.password("agent") == secret
    assert "AOF-loading" not in stack.compose("logs", "redis")


def test_the_engine_waits_longer_than_the_longest_job(stack: Stack) -> None:
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    agents = load_roster(load_settings(stack.folder / "town", environ={})).agents.values()
    longest = max(schedule.PERIODIC_TIMEOUT, *(queues.JOB_MARGIN + agent.stop_grace for agent in agents))
    for name in ("worker", "scheduler"):
        patience = parse_duration(services[name]["stop_grace_period"])
        assert patience > longest
        assert patience > supervisor.STOP_DEADLINE + 2 * supervisor.KILL_GRACE
