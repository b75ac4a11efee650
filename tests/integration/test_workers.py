"""The rq worker of a town: many jobs at once, and an end in any case."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rq.serializers import JSONSerializer

from gastown_mail.contracts.private import make_private_dir, private_dir
from gastown_mail.daemon import jobs
from gastown_mail.plumbing.connections import to_strs
from gastown_mail.town.queues import HEARTBEAT, SWEEP, TownJob
from gastown_mail.town.town import Town
from tests.integration.test_queues import LONG, a_worker, becomes, idle, put, smuggle, status, target
from tests.support.parts import WORKER
from tests.support.processes import clean_environ, kill, lives
from tests.support.redis import OwnServer
from tests.support.wait import eventually


def test_a_worker_has_one_queue_and_a_unique_name(town: Town) -> None:
    """A worker of two queues can lose a job; a fixed name would block the successor."""
    made = [jobs.make_worker(town, "w", "q", town.redis) for _ in range(2)]

    assert [[queue.name for queue in worker.queues] for worker in made] == [["q"], ["q"]]
    assert made[0].name != made[1].name
    assert all(worker.job_class is TownJob and worker.serializer is JSONSerializer for worker in made)


@contextmanager
def stuck_heartbeats(town: Town) -> Iterator[None]:
    """Heartbeats get as far as writing state.json and wait there, at most 5 s."""
    private = private_dir(town.settings.daemon_dir)
    make_private_dir(private)
    with (private / "state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def beats(town: Town) -> int:
    return int(town.redis.hget(town.keys.state_of(town.host), "heartbeat_count") or 0)


def test_a_job_whose_worker_was_killed_runs_when_it_is_queued_again(own_town: Town) -> None:
    put(own_town, "beat", HEARTBEAT)
    with a_worker(own_town) as worker, stuck_heartbeats(own_town):
        eventually(lambda: beats(own_town) == 1, deadline=LONG)
        kill(worker)

    put(own_town, "beat", HEARTBEAT)
    with a_worker(own_town):
        becomes(own_town, "beat", "finished")
    assert beats(own_town) == 2


def test_a_waiting_job_does_not_block_others(own_town: Town) -> None:
    put(own_town, "beat", HEARTBEAT)
    with a_worker(own_town) as worker, stuck_heartbeats(own_town):
        eventually(lambda: beats(own_town) == 1, deadline=LONG)

        put(own_town, "another")

        becomes(own_town, "another", "finished")
        assert status(own_town, "beat") == "started"
        (registered,) = to_strs(own_town.redis.smembers("rq:workers"))
        assert own_town.redis.hget(registered, "state") == b"busy"
        assert lives(worker)


def test_a_stopping_worker_finishes_its_jobs(own_town: Town) -> None:
    put(own_town, "beat", HEARTBEAT)
    with a_worker(own_town) as worker:
        with stuck_heartbeats(own_town):
            eventually(lambda: beats(own_town) == 1, deadline=LONG)
            worker.terminate()
            put(own_town, "too-late")
            eventually(lambda: own_town.redis.scard("rq:workers") == 1)
        eventually(lambda: not lives(worker), deadline=LONG)

    assert status(own_town, "beat") == "finished"
    assert status(own_town, "too-late") == "queued"


def test_a_second_signal_ends_a_worker_at_once(own_town: Town) -> None:
    put(own_town, "beat", HEARTBEAT)
    with a_worker(own_town) as worker, stuck_heartbeats(own_town):
        eventually(lambda: beats(own_town) == 1, deadline=LONG)

        def told() -> bool:
            worker.terminate()
            return not lives(worker)

        eventually(told, deadline=4.0, step=0.3)
        assert status(own_town, "beat") == "started"


def test_a_worker_resumes_when_redis_comes_back(own_town: Town, server: OwnServer) -> None:
    put(own_town, "before")
    with a_worker(own_town) as worker:
        becomes(own_town, "before", "finished")
        idle(own_town)

        server.kill()
        server.start_again()
        put(own_town, "after")

        becomes(own_town, "after", "finished")
        assert lives(worker)


def test_a_worker_that_an_emptied_redis_forgot_ends(own_town: Town) -> None:
    """Otherwise `rq info` would show 0 workers forever."""
    put(own_town, "before")
    with a_worker(own_town) as worker:
        becomes(own_town, "before", "finished")
        assert own_town.redis.scard("rq:workers") == 1
        idle(own_town)

        own_town.redis.flushall()

        eventually(lambda: not lives(worker), deadline=LONG)
    put(own_town, "after")
    with a_worker(own_town):
        becomes(own_town, "after", "finished")
        assert own_town.redis.scard("rq:workers") == 1


def test_a_stopped_worker_leaves_the_list_of_workers(own_town: Town) -> None:
    with a_worker(own_town) as worker:
        idle(own_town)
        assert own_town.redis.scard("rq:workers") == 1

        worker.terminate()

        eventually(lambda: not lives(worker), deadline=LONG)
    assert own_town.redis.scard("rq:workers") == 0


def test_a_worker_that_cannot_start_a_job_ends(own_town: Town) -> None:
    """Redis refuses the worker's TTL; silence at that moment would have the same effect."""
    job = json.dumps([SWEEP, None, [], {}]).encode()
    smuggle(own_town, "evil", job, timeout=b"9" * 20)

    with a_worker(own_town) as worker:
        eventually(lambda: not lives(worker), deadline=LONG)


TOLD_WHILE_IT_BEGINS = """
import os, signal
from gastown_mail.daemon import jobs
begin = jobs.TownWorker.prepare_execution
def told_just_then(self, job):
    os.kill(os.getpid(), signal.SIGTERM)
    return begin(self, job)
jobs.TownWorker.prepare_execution = told_just_then
"""


@contextmanager
def popen(
    town: Town, prelude: str = "", words: Path = Path(os.devnull)
) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker of the town's heartbeat queue, as a process that tells its exit code; it logs to `words`."""
    command = [sys.executable, "-c", prelude + WORKER, str(town.settings.town_root), town.redis_url]
    with words.open("w") as complaints, subprocess.Popen(
        [*command, target(town).name], stdout=complaints, stderr=complaints,
        env=dict(clean_environ()), start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_between_taking_and_starting_a_job_ends_the_worker(own_town: Town) -> None:
    put(own_town, "job")

    with popen(own_town, TOLD_WHILE_IT_BEGINS) as worker:
        assert worker.wait(LONG) == 0


def test_sigterm_to_a_stopping_worker_interrupts_nothing(own_town: Town, tmp_path: Path) -> None:
    put(own_town, "beat", HEARTBEAT)
    with popen(own_town, words=tmp_path / "words") as worker:
        with stuck_heartbeats(own_town):
            eventually(lambda: beats(own_town) == 1, deadline=LONG)
            own_town.redis.srem("rq:workers", *own_town.redis.smembers("rq:workers"))
            put(own_town, "wakes-it")
            eventually(lambda: "no longer registered" in (tmp_path / "words").read_text(), deadline=LONG)

            worker.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(1.0)

        assert worker.wait(LONG) == 0
    assert status(own_town, "beat") == "finished"


def test_jobs_are_not_waited_for_longer_than_the_deadline(own_town: Town) -> None:
    put(own_town, "beat", HEARTBEAT)
    hasty = "from gastown_mail.daemon import jobs; jobs._DRAIN_DEADLINE = 0.1\n"
    with popen(own_town, hasty) as worker, stuck_heartbeats(own_town):
        eventually(lambda: beats(own_town) == 1, deadline=LONG)

        worker.terminate()

        assert worker.wait(LONG) == 0
        assert status(own_town, "beat") == "started"
