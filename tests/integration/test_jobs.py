"""The functions that rq workers run, and no others."""

import json
import os
import zlib
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from rq import SimpleWorker
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from gastown_mail.contracts.errors import GastownError
from gastown_mail.daemon import jobs
from gastown_mail.town import queues
from gastown_mail.town.lease import Lease
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town
from tests.support.agents import DEACON, MAX, RECORDED, RECORDER, WITH_DEACON, WITNESS
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

OPERATOR = "an operator"


@pytest.fixture
def bound(stage: Stage) -> Stage:
    jobs.serving.set(stage.town)
    return stage


def test_a_running_agent_is_not_started_a_second_time(bound: Stage) -> None:
    session = bound.run()

    assert jobs.start(MAX, "once more", OPERATOR) == "runs already"

    assert identity(bound.living()) == identity(session)


def test_an_automatic_start_leaves_agents_that_need_not_run_alone(bound: Stage) -> None:
    assert jobs.start(MAX, "some old job").startswith("left alone")
    assert bound.session() is None


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.PAUSED])
def test_an_automatic_start_that_waited_too_long_is_dropped(
    make_town: Callable[..., Town], desired: Desired
) -> None:
    stage = Stage(make_town(WITH_DEACON))
    jobs.serving.set(stage.town)
    stage.town.agents.write(DEACON, AgentRecord(desired=desired))

    assert jobs.start(DEACON, "it must keep running").startswith("left alone")

    assert stage.session(DEACON) is None


def test_nothing_is_started_over_an_unmanaged_session(bound: Stage) -> None:
    name = bound.agent().session
    bound.town.sessions.tmux.run("new-session", "-d", "-s", name, "exec sleep 600")
    foreign = bound.living()

    assert "not managed" in jobs.start(MAX, "a test wants it", OPERATOR)

    assert identity(bound.living()) == identity(foreign)


def test_an_impossible_start_says_why_and_starts_nothing(make_town: Callable[..., Town]) -> None:
    stage = Stage(make_town(RECORDED.replace(RECORDER, "no-such-program {prompt}")))
    jobs.serving.set(stage.town)

    answer = jobs.start(MAX, "a test wants it", OPERATOR)

    assert answer.startswith("failed: ")
    assert "no-such-program" in answer
    assert stage.session() is None


def test_a_start_does_not_wait_for_another_operation_on_the_agent(bound: Stage) -> None:
    other = Lease(bound.town.redis, bound.town.keys.lease(MAX), bound.town.host)
    assert other.acquire()

    assert jobs.start(MAX, "a test wants it", OPERATOR).startswith("busy")

    assert bound.session() is None
    other.release()


def test_a_start_on_a_tmux_that_does_not_answer_starts_nothing(bound: Stage) -> None:
    server = bound.run(WITNESS).server

    with bound.tmux_stopped(server):
        assert jobs.start(MAX, "a test wants it", OPERATOR).startswith("failed")

    assert bound.session() is None
    assert jobs.start(MAX, "a test wants it", OPERATOR).startswith("started")


def test_a_request_that_came_during_a_start_is_queued_after_it(bound: Stage) -> None:
    ident = bound.ask("restart", "operator", to=MAX)
    bound.town.redis.delete(bound.town.queues.lifecycle(bound.town.host).key)

    bound.run()

    waiting = bound.town.queues.lifecycle(bound.town.host).job_ids
    assert waiting == [bound.town.keys.job_id("request", ident)]


def test_an_operators_poke_is_typed_at_once(bound: Stage) -> None:
    bound.run()
    bound.wrote("prompt")

    assert jobs.poke(MAX, "look at #12; it's  red") == "delivered"

    eventually(lambda: bound.wrote("lines").read_text() == "look at #12; it's  red\n")


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda stage: None, "no session"),
        (lambda stage: stage.run(), "no poke"),
        (lambda stage: (stage.run(), stage.town.desired.pause(MAX)), "paused"),
    ],
    ids=["no session", "no poke", "paused"],
)
def test_an_impossible_poke_says_why(bound: Stage, prepare: Callable[[Stage], object], why: str) -> None:
    prepare(bound)

    answer = jobs.poke(MAX, "hello" if why == "paused" else "")

    assert why in answer
    assert answer.startswith(("held: ", "failed: "))


def test_a_process_without_a_town_runs_no_job() -> None:
    with pytest.raises(GastownError, match="serves no town"):
        Context().run(jobs.heartbeat)


class Burst(SimpleWorker):
    """Run the queued jobs in this process, then end."""

    job_class = queues.TownJob
    queue_class = queues.TownQueue


def run_all(stage: Stage) -> None:
    queue = stage.town.queues.lifecycle(stage.town.host)
    worker = Burst([queue], connection=stage.town.redis, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")


def test_a_job_in_redis_is_readable_json(bound: Stage) -> None:
    ident = bound.ask("restart")

    key = f"rq:job:{bound.town.keys.job_id('request', ident)}"
    payload: Any = bound.town.redis.hgetall(key)

    data = json.loads(zlib.decompress(payload[b"data"]))
    assert data == [queues.CARRY_OUT, None, [ident], {}]
    assert payload[b"description"].decode() == f"request {ident} for {MAX}"
    assert (
        payload[b"origin"].decode() == f"gastown-{bound.town.settings.town_name}-{bound.town.host}-lifecycle"
    )


@pytest.mark.parametrize(
    "function", ["os.system", "gastown_mail.daemon.jobs.serving.set", "builtins.eval", "jobs.start"]
)
def test_a_job_with_any_other_function_fails_and_runs_nothing(bound: Stage, function: str) -> None:
    trace = bound.town.settings.town_root / "trace"
    queue = bound.town.queues.lifecycle(bound.town.host)
    wish = queue.prepare_data(function, args=(f"touch {trace}",), job_id="evil")
    [job] = queue.enqueue_many([wish])

    run_all(bound)

    assert job.get_status(refresh=True) is JobStatus.FAILED
    assert not trace.exists()


def leave_a_trace(*_: object) -> None:
    """A callback that rq could find and call."""
    Path(os.environ["TRACE"]).touch()


def test_a_jobs_callbacks_are_ignored(bound: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("TRACE", str(trace))
    ident = bound.ask("shutdown", "operator", to=MAX)
    key = f"rq:job:{bound.town.keys.job_id('request', ident)}"
    for name in ("success", "failure", "stopped"):
        bound.town.redis.hset(key, f"{name}_callback_name", f"{__name__}.leave_a_trace")

    run_all(bound)

    assert bound.status(ident) == "done"
    assert not trace.exists()
