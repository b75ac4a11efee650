"""The periodic jobs: registered whenever they are missing, and never queued twice."""

import fcntl
import json
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace

import pytest
import redis

from gastown_mail.contracts.private import make_private_dir, private_dir
from gastown_mail.daemon import schedule
from gastown_mail.daemon.schedule import LOCK_LEASE, PeriodicJob, TownScheduler, next_due, tick
from gastown_mail.plumbing.connections import connect
from gastown_mail.town import queues
from gastown_mail.town.queues import HEARTBEAT, SWEEP, TownJob
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.parts import SCHEDULER, WORKER, running
from tests.support.processes import kill, lives
from tests.support.redis import OwnServer
from tests.support.wait import eventually

LONG = 60.0
HOUR = 3600.0
EVERY_SECOND = TWO_AGENTS + "[daemon]\nheartbeat_interval = 1\nsweep_interval = 1\n"


@pytest.fixture
def job(town: Town) -> PeriodicJob:
    queue = town.keys.heartbeat_queue(town.host)
    return PeriodicJob(
        town.keys.job_id("heartbeat", town.host), HEARTBEAT, queue, HOUR, f"{town.keys.town}-lock"
    )


@pytest.fixture
def scheduler(town: Town) -> TownScheduler:
    return TownScheduler(town.keys.town, town.redis)


def waiting(town: Town) -> list[str]:
    return queues.open_queue(town.keys.heartbeat_queue(town.host), town.redis).get_job_ids()


def a_worker_takes_it(town: Town, job: PeriodicJob) -> None:
    assert waiting(town) == [job.job_id]
    town.redis.delete(f"rq:queue:{job.queue}")


def make_due(town: Town, job: PeriodicJob) -> None:
    schedule.run_now(town.keys.town, town.redis, job.job_id)
    town.redis.zadd(TownScheduler(town.keys.town, town.redis).scheduled_jobs_key, {job.job_id: 1})


def seconds_until_due(town: Town, job: PeriodicJob) -> float:
    due = next_due(town.keys.town, town.redis, job.job_id)
    assert due
    return due.timestamp() - time.time()


def test_the_first_run_is_due_at_once_and_the_next_after_the_interval(
    town: Town, scheduler: TownScheduler, job: PeriodicJob
) -> None:
    assert next_due(town.keys.town, town.redis, job.job_id) is None

    tick(scheduler, [job])

    assert waiting(town) == [job.job_id]
    assert HOUR - 60 < seconds_until_due(town, job) <= HOUR + 1


def test_a_registered_job_is_left_alone(town: Town, scheduler: TownScheduler, job: PeriodicJob) -> None:
    tick(scheduler, [job])
    a_worker_takes_it(town, job)
    before = next_due(town.keys.town, town.redis, job.job_id)

    for _ in range(3):
        tick(scheduler, [job])
        tick(TownScheduler(town.keys.town, town.redis), [job])

    assert waiting(town) == []
    assert next_due(town.keys.town, town.redis, job.job_id) == before


@pytest.mark.parametrize(
    "loss", ["the entry", "the job", "all but what rq wrote later", "its data", "its meta", "everything"]
)
def test_a_lost_job_is_registered_again(
    town: Town, scheduler: TownScheduler, job: PeriodicJob, loss: str
) -> None:
    tick(scheduler, [job])
    a_worker_takes_it(town, job)
    key = f"rq:job:{job.job_id}"
    if loss in ("the entry", "everything"):
        town.redis.zrem(scheduler.scheduled_jobs_key, job.job_id)
    if loss in ("the job", "all but what rq wrote later", "everything"):
        town.redis.delete(key)
    if loss == "all but what rq wrote later":
        town.redis.hset(key, mapping={"status": "finished", "last_heartbeat": "2025-12-20T10:12:21.000000Z"})
    if loss in ("its data", "its meta"):
        town.redis.hset(key, loss.removeprefix("its "), b"\x80\x04 spoilt")

    tick(scheduler, [job])

    assert waiting(town) == [job.job_id]
    found = TownJob.fetch(job.job_id, connection=town.redis)
    assert (found.func_name, found.meta["interval"], found.meta["lock"]) == (HEARTBEAT, HOUR, job.lock)
    assert seconds_until_due(town, job) > HOUR - 60


@pytest.mark.parametrize("change", ["interval", "queue", "lock", "function"])
def test_a_changed_job_is_registered_again(
    town: Town, scheduler: TownScheduler, job: PeriodicJob, change: str
) -> None:
    tick(scheduler, [job])
    a_worker_takes_it(town, job)
    values = {"interval": 7200.0, "queue": f"{job.queue}-new", "lock": "new", "function": SWEEP}
    changed = replace(job, **{change: values[change]})  # type: ignore[arg-type]

    tick(scheduler, [changed])

    found = TownJob.fetch(job.job_id, connection=town.redis)
    assert found.meta["interval"] == changed.seconds
    assert (found.func_name, found.origin, found.meta["lock"]) == (
        changed.function,
        changed.queue,
        changed.lock,
    )
    assert town.redis.lrange(f"rq:queue:{changed.queue}", 0, -1) == [job.job_id.encode()]
    assert town.redis.zcard(scheduler.scheduled_jobs_key) == 1


def test_missed_runs_are_coalesced(town: Town, scheduler: TownScheduler, job: PeriodicJob) -> None:
    """With plain rq-scheduler, three missed ticks put the same job into the queue three times."""
    for _ in range(5):
        tick(scheduler, [job])
        make_due(town, job)

    tick(scheduler, [job])

    assert waiting(town) == [job.job_id]
    assert seconds_until_due(town, job) > HOUR - 60


def test_a_running_job_is_not_queued_again(town: Town, scheduler: TownScheduler, job: PeriodicJob) -> None:
    tick(scheduler, [job])
    a_worker_takes_it(town, job)
    town.redis.set(job.lock, "the one that runs")
    make_due(town, job)

    tick(scheduler, [job])

    assert waiting(town) == []
    assert seconds_until_due(town, job) > HOUR - 60
    town.redis.delete(job.lock)
    make_due(town, job)
    tick(scheduler, [job])
    assert waiting(town) == [job.job_id]


def test_two_jobs_do_not_block_each_other(town: Town, scheduler: TownScheduler, job: PeriodicJob) -> None:
    other = replace(job, job_id=f"{job.job_id}-other", function=SWEEP, lock="other", interval=60.0)
    town.redis.set(job.lock, "the one that runs")

    tick(scheduler, [job, other])

    assert waiting(town) == [other.job_id]
    assert 0 < seconds_until_due(town, other) <= 61


@pytest.mark.parametrize(("interval", "seconds"), [(0.2, 1), (1.0, 1), (1.5, 2), (300.0, 300)])
def test_intervals_are_whole_seconds(job: PeriodicJob, interval: float, seconds: int) -> None:
    """rq-scheduler fires an interval of half a second only once."""
    assert replace(job, interval=interval).seconds == seconds


def test_the_lock_of_a_killed_scheduler_ends_with_its_lease(
    town: Town, scheduler: TownScheduler, job: PeriodicJob
) -> None:
    dies = (
        "import sys\nfrom gastown_mail.daemon.schedule import TownScheduler\n"
        "from gastown_mail.plumbing.connections import connect\n"
        "assert TownScheduler(sys.argv[2], connect(sys.argv[1])).acquire_lock()"
    )
    subprocess.run([sys.executable, "-c", dies, town.redis_url, town.keys.town], check=True, timeout=LONG)
    lock = f"rq:scheduler:gastown-{town.keys.town}:lock"
    assert 0 < town.redis.pttl(lock) <= LOCK_LEASE * 1000

    tick(scheduler, [job])
    assert waiting(town) == []

    def ticked() -> list[str]:
        tick(scheduler, [job])
        return waiting(town)

    eventually(ticked, deadline=LOCK_LEASE + 10)


def test_a_scheduler_gives_back_only_its_own_lock(town: Town, scheduler: TownScheduler) -> None:
    other = TownScheduler(town.keys.town, town.redis)
    assert scheduler.acquire_lock()
    assert not other.acquire_lock()
    town.redis.delete(f"rq:scheduler:gastown-{town.keys.town}:lock")
    assert other.acquire_lock()

    scheduler.remove_lock()

    assert not scheduler.acquire_lock()
    other.remove_lock()
    assert scheduler.acquire_lock()
    scheduler.remove_lock()


def test_other_users_of_the_same_redis_are_not_touched(own_town: Town) -> None:
    client, name = own_town.redis, own_town.keys.town
    theirs = {
        "rq:scheduler:scheduled_jobs": {"their-job": 1.0},
        "rq:scheduler:gastown-other:scheduled_jobs": {"x": 1.0},
    }
    for key, members in theirs.items():
        client.zadd(key, members)
    client.set("rq:scheduler_lock", "theirs")
    job = PeriodicJob("a-job", HEARTBEAT, "a-queue", HOUR, "a-lock")

    tick(TownScheduler(name, client), [job])

    found = {key.decode() for key in client.scan_iter("rq:scheduler*") if isinstance(key, bytes)}
    assert found == {*theirs, "rq:scheduler_lock", f"rq:scheduler:gastown-{name}:scheduled_jobs"}
    assert all(client.zcard(key) == 1 for key in theirs)
    assert client.get("rq:scheduler_lock") == b"theirs"


def test_a_periodic_job_is_json(town: Town, scheduler: TownScheduler, job: PeriodicJob) -> None:
    tick(scheduler, [job])

    fields = town.redis.hgetall(f"rq:job:{job.job_id}")
    data: bytes = fields[b"data"]  # type: ignore[assignment]
    assert json.loads(zlib.decompress(data)) == [HEARTBEAT, None, [], {}]
    assert json.loads(fields[b"meta"]) == {"interval": HOUR, "lock": job.lock}


def test_only_a_registered_jobs_next_run_can_be_brought_forward(
    town: Town, scheduler: TownScheduler, job: PeriodicJob
) -> None:
    schedule.run_now(town.keys.town, town.redis, job.job_id)
    assert next_due(town.keys.town, town.redis, job.job_id) is None
    tick(scheduler, [job])

    schedule.run_now(town.keys.town, town.redis, job.job_id)

    assert seconds_until_due(town, job) < 1


def test_a_scheduler_ends_on_request(town: Town, job: PeriodicJob) -> None:
    stop = threading.Event()
    with connect(town.redis_url) as client:
        keeper = threading.Thread(
            target=schedule.run_scheduler_loop, args=(town.keys.town, client, [job], stop)
        )
        keeper.start()
        eventually(lambda: waiting(town) == [job.job_id])

        stop.set()

        keeper.join(60)
        assert not keeper.is_alive()


def test_a_periodic_job_does_not_vanish_when_it_is_done(
    town: Town, scheduler: TownScheduler, job: PeriodicJob
) -> None:
    """A finite `result_ttl` would make a periodic job vanish."""
    tick(scheduler, [job])
    with running(WORKER, town.settings, town.redis_url, job.queue):
        eventually(lambda: town.redis.hget(f"rq:job:{job.job_id}", "status") == b"finished", deadline=LONG)

        assert town.redis.ttl(f"rq:job:{job.job_id}") == -1


@pytest.fixture
def fast_town(own_town: Town) -> Town:
    """A town whose heartbeat and sweep are due every second."""
    (own_town.settings.town_root / "town.toml").write_text(EVERY_SECOND)
    return own_town


def continues(town: Town) -> None:
    """Check that three more heartbeats are completed."""

    def beats() -> int:
        return int(town.redis.hget(town.keys.state, "heartbeat_count") or 0)

    before = beats()
    eventually(lambda: beats() >= before + 3, deadline=LONG)


def test_a_heartbeat_that_fails_is_due_again(fast_town: Town) -> None:
    queue = fast_town.keys.heartbeat_queue(fast_town.host)
    private = private_dir(fast_town.settings.daemon_dir)
    make_private_dir(private)
    failed = queues.open_queue(queue, fast_town.redis).failed_job_registry
    with (
        running(SCHEDULER, fast_town.settings, fast_town.redis_url),
        running(WORKER, fast_town.settings, fast_town.redis_url, queue),
    ):
        with (private / "state.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            eventually(failed.get_job_count, deadline=LONG)

        continues(fast_town)


def both_are_put_again(town: Town) -> None:
    """Check that heartbeat and sweep are queued again after a worker has taken them."""
    town.redis.delete(f"rq:queue:{town.keys.heartbeat_queue(town.host)}")
    eventually(lambda: len(waiting(town)) == 2, deadline=LONG)


def test_a_killed_scheduler_is_replaced_by_the_next(fast_town: Town) -> None:
    for _ in range(3):
        with running(SCHEDULER, fast_town.settings, fast_town.redis_url) as scheduler:
            both_are_put_again(fast_town)
            kill(scheduler)


def test_a_scheduler_survives_redis(fast_town: Town, server: OwnServer) -> None:
    with running(SCHEDULER, fast_town.settings, fast_town.redis_url) as scheduler:
        both_are_put_again(fast_town)

        server.kill()
        server.start_again()
        both_are_put_again(fast_town)

        fast_town.redis.flushall()
        both_are_put_again(fast_town)

        with server.frozen(), pytest.raises(redis.TimeoutError):
            fast_town.redis.ping()  # This client waits longer than the scheduler.
        both_are_put_again(fast_town)
        assert lives(scheduler)
