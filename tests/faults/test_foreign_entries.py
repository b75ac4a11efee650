"""One bad value, in tmux or in Redis, spoils what it belongs to and nothing else."""

import json
import shlex
import subprocess
import threading
from collections.abc import Callable
from functools import partial

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from gastown_mail.daemon import schedule
from gastown_mail.daemon.schedule import PeriodicJob, TownScheduler
from gastown_mail.lifecycle import heartbeat
from gastown_mail.plumbing.connections import to_str
from gastown_mail.status.collect import StatusCollector
from gastown_mail.town.queues import HEARTBEAT, SWEEP, enqueue_job, open_queue
from gastown_mail.town.town import Town
from tests.support.agents import MAX, MAXINE, RECORDED, WITNESS
from tests.support.parts import WORKER, running
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

LONG = 30.0


@pytest.fixture
def stage(make_town: Callable[..., Town]) -> Stage:
    return Stage(make_town(RECORDED))


def tmux(stage: Stage, *argv: str) -> str:
    return stage.town.sessions.tmux.run(*argv)


@pytest.mark.parametrize("ahead", ["99999999999999999", "9" * 5000, "soon", "-1e400", str(2**62)])
def test_a_generation_that_no_start_can_exceed_is_told_before_the_session_ends(
    stage: Stage, ahead: str
) -> None:
    session, option = stage.run(), f"@gastown_generation_{stage.agent().session}"
    tmux(stage, "set-option", "-s", option, ahead)

    outcome, detail = stage.carry_out("cycle", incarnation=session.incarnation)

    assert outcome == "refused"
    assert identity(stage.living()) == identity(session)
    subprocess.run(shlex.split(detail.partition("; ")[2].removesuffix(" removes it")), check=True)
    assert stage.carry_out("cycle", incarnation=session.incarnation)[0] == "done"


def test_a_generation_ahead_does_not_spoil_a_shutdown_or_another_agent(stage: Stage) -> None:
    sessions = {address: stage.run(address) for address in (MAX, MAXINE)}
    tmux(stage, "set-option", "-s", f"@gastown_generation_{stage.agent().session}", "9" * 17)

    for address, action in ((MAX, "shutdown"), (MAXINE, "cycle")):
        outcome, _ = stage.carry_out(action, address, incarnation=sessions[address].incarnation)
        assert outcome == "done"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("@gastown_generation", "9" * 5000),
        ("@gastown_started", "99999999999999"),
        ("@gastown_started", "-1"),
        ("@gastown_pane", "%99999"),
        ("@gastown_pane", "no pane"),
        ("@gastown_home", "$99999"),
        ("@gastown_agent", "nobody/at/home"),
        ("@gastown_town", "x" * 5000),
        ("@gastown_incarnation", "no token at all"),
    ],
)
def test_a_bad_option_of_one_session_spoils_no_other(stage: Stage, option: str, value: str) -> None:
    spoiled, other = stage.run(MAX), stage.run(MAXINE)
    tmux(stage, "set-option", "-t", spoiled.id, option, value)
    tmux(stage, "set-option", "-p", "-t", spoiled.pane, option, value)

    heartbeat.run_heartbeat(stage.town)

    assert identity(stage.living(MAXINE)) == identity(other)
    outcome, _ = stage.carry_out("cycle", MAXINE, incarnation=other.incarnation)
    assert outcome == "done"


def test_a_damaged_record_of_one_agent_stops_no_other(stage: Stage) -> None:
    kept = stage.run(MAXINE)
    stage.redis.hset(stage.town.keys.agent(MAX), "restarts", "many")

    counted = heartbeat.run_heartbeat(stage.town).heartbeat_count

    assert counted == 1
    assert "is damaged" in str(stage.redis.hget(stage.town.keys.agent(MAX), "decision"))
    assert stage.town.agents.read(WITNESS).decision.startswith(("left alone", "a start", "its session"))
    assert identity(stage.living(MAXINE)) == identity(kept)
    collector = StatusCollector(stage.settings)
    collector.town = stage.town
    rows = {row.agent: row for row in collector.agents(stage.town.roster())}
    assert "is damaged" in (rows[MAX].damage or "")
    assert rows[MAXINE].observed == "alive"


JOB = "rq:job:bad-job"
GOOD_META = {"lock": "l", "interval": 60}

BAD_ENTRIES: dict[str, tuple[str, ...] | dict[str, object]] = {
    "no hash": (),
    "a string": ("SET", JOB, "x"),
    "a list": ("RPUSH", JOB, "x"),
    "an empty job": ("HSET", JOB, "data", ""),
    "not JSON": ("HSET", JOB, "data", "\x80K."),
    "a bad time": {"created_at": "yesterday"},
    "a bad timeout": {"timeout": "soon"},
    "a bad status": {"status": "asleep"},
    "no meta": {"meta": "nothing"},
    "meta that is a list": {"meta": "[1]"},
    "a bad interval": {"meta": json.dumps({"lock": "l", "interval": "x"})},
    "a foreign class": {"meta": json.dumps(GOOD_META | {"queue_class_name": "this.X"})},
    "no function": {"data": json.dumps([None, None, [], {}])},
    "a foreign function": {"data": json.dumps(["os.getpid", None, [], {}])},
    "data that is no list": {"data": "5"},
    "bad dependencies": {"dependency_ids": "{"},
    "bad retries": {"number_of_retries": "many", "retries_left": "many"},
    "bad arguments": {"data": json.dumps([SWEEP, None, ["one", "two"], {"three": 3}])},
}
"""What another program may leave under the id of a job: a command, or fields of a job of ours."""


def put_bad_job(town: Town, what: str) -> None:
    town.redis.delete(JOB)
    match BAD_ENTRIES[what]:
        case ():
            return
        case tuple(command):
            town.redis.execute_command(*command)  # type: ignore[no-untyped-call]
        case dict(fields):
            job = Job.create(
                HEARTBEAT, id="bad-job", connection=town.redis, serializer=JSONSerializer, origin="q"
            )
            job.meta = GOOD_META
            job.save()
            town.redis.hset(JOB, mapping=fields)  # type: ignore[arg-type]


@pytest.fixture
def beat(town: Town) -> PeriodicJob:
    queue = town.keys.heartbeat_queue(town.host)
    ident = town.keys.job_id("heartbeat", town.host)
    return PeriodicJob(ident, HEARTBEAT, queue, 3600.0, f"{town.keys.town}-lock")


def queued_by_schedule(town: Town, beat: PeriodicJob) -> list[str]:
    """The ids that the scheduler puts on the heartbeat's queue while it runs."""
    stop, queue = threading.Event(), open_queue(beat.queue, town.redis)
    arguments = (town.keys.town, town.redis, [beat], stop)
    loop = threading.Thread(target=schedule.run_scheduler_loop, args=arguments)
    loop.start()
    try:
        eventually(lambda: to_str(town.redis.type(queue.key)) == "list", deadline=LONG)
    finally:
        stop.set()
        loop.join(LONG)
    return queue.get_job_ids()


@pytest.mark.parametrize("what", BAD_ENTRIES)
def test_a_bad_entry_of_the_schedule_does_not_stop_the_heartbeat(
    town: Town, beat: PeriodicJob, what: str
) -> None:
    put_bad_job(town, what)
    town.redis.zadd(TownScheduler(town.keys.town, town.redis).scheduled_jobs_key, {"bad-job": 1})

    assert queued_by_schedule(town, beat) == [beat.job_id]


@pytest.mark.parametrize("what", ["the schedule", "the job", "the queue", "the lock"])
def test_a_key_of_another_kind_does_not_stop_the_heartbeat(town: Town, beat: PeriodicJob, what: str) -> None:
    scheduled = TownScheduler(town.keys.town, town.redis).scheduled_jobs_key
    names = {
        "the lock": scheduled.replace(":scheduled_jobs", ":lock"),
        "the schedule": scheduled,
        "the job": f"rq:job:{beat.job_id}",
        "the queue": f"rq:queue:{beat.queue}",
    }
    town.redis.set(names[what], "something else")

    assert queued_by_schedule(town, beat) == [beat.job_id]


def _has_finished(job: Job) -> bool:
    return job.get_status(refresh=True) == "finished"


def test_bad_entries_of_a_queue_do_not_end_its_worker(own_town: Town) -> None:
    queue = open_queue(own_town.keys.heartbeat_queue(own_town.host), own_town.redis)
    own_town.redis.set(queue.key, "something else")
    with running(WORKER, own_town.settings, own_town.redis_url, queue.name) as worker:
        eventually(lambda: own_town.redis.scard("rq:workers") == 1, deadline=LONG)
        for what in BAD_ENTRIES:
            put_bad_job(own_town, what)
            own_town.redis.rpush(queue.key, "bad-job")
            good = enqueue_job(queue, SWEEP, job_id=f"good-{what.replace(' ', '-')}", about="after it")
            eventually(partial(_has_finished, good), deadline=LONG)

        assert worker.is_running()
        assert own_town.redis.scard("rq:workers") == 1
