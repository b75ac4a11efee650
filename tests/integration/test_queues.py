"""rq as the daemon uses it: JSON on the wire, only its own functions, and workers that survive failures."""

import json
import os
import pickle
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from gastown_mail.contracts.errors import GastownError
from gastown_mail.plumbing.connections import to_str
from gastown_mail.town import queues
from gastown_mail.town.queues import ALLOWED_FUNCTIONS, CARRY_OUT, START, SWEEP, TownJob, TownQueue
from gastown_mail.town.town import Town
from tests.support.parts import WORKER, running
from tests.support.processes import lives
from tests.support.wait import eventually

LONG = 60.0


def target(town: Town) -> TownQueue:
    return queues.open_queue(town.keys.heartbeat_queue(town.host), town.redis)


@contextmanager
def a_worker(town: Town) -> Iterator[psutil.Process]:
    """A worker of the town's heartbeat queue."""
    with running(WORKER, town.settings, town.redis_url, target(town).name) as worker:
        yield worker


def put(town: Town, ident: str = "job", function: str = SWEEP, *arguments: str) -> str:
    queues.enqueue_job(target(town), function, *arguments, job_id=ident, about="a test's")
    return ident


def status(town: Town, ident: str) -> str:
    return to_str(town.redis.hget(f"rq:job:{ident}", "status"))


def failure(town: Town, ident: str) -> str:
    """Return why a job has failed."""
    assert status(town, ident) == "failed"
    result = TownJob.fetch(ident, connection=town.redis).latest_result()
    return str(result and result.exc_string)


def becomes(town: Town, ident: str, wanted: str) -> None:
    eventually(lambda: status(town, ident) == wanted, deadline=LONG)


def everything_of_rq(town: Town) -> bytes:
    """Return everything that rq stores about its jobs, unpacked."""
    redis: Any = town.redis
    found = b""
    for key in redis.scan_iter("rq:job:*"):
        for name, value in redis.hgetall(key).items():
            found += zlib.decompress(value) if name == b"data" else value
    for key in redis.scan_iter("rq:results:*"):
        for _, entry in redis.xrange(key):
            found += b"".join(entry.values())
    return found


def idle(town: Town) -> None:
    """Wait until the only worker of the server waits for a job."""
    eventually(lambda: town.redis.info("clients")["blocked_clients"] == 1, deadline=LONG)


def test_jobs_are_json_in_redis(own_town: Town) -> None:
    put(own_town, "one", SWEEP)
    with a_worker(own_town):
        becomes(own_town, "one", "finished")
    put(own_town, "two", START, "deacon/", "ünd")

    data = own_town.redis.hget("rq:job:two", "data")
    assert isinstance(data, bytes)
    assert json.loads(zlib.decompress(data)) == [START, None, ["deacon/", "ünd"], {}]
    assert b"\x80\x04" not in everything_of_rq(own_town)
    assert b"\x80\x05" not in everything_of_rq(own_town)


def test_a_job_has_time_limits_and_ttls(town: Town) -> None:
    job = queues.enqueue_job(target(town), CARRY_OUT, "one", job_id="j", about="what for", grace=90.5)

    found = TownJob.fetch("j", connection=town.redis)
    assert (job.id, found.func_name, found.args) == ("j", CARRY_OUT, ["one"])
    assert (found.timeout, found.result_ttl, found.failure_ttl) == (150, 3600, 7 * 24 * 3600)
    assert (found.retries_left, found.description) == (3, "what for")


def test_on_a_pipeline_a_job_appears_with_the_transaction_or_not_at_all(town: Town) -> None:
    wish: dict[str, Any] = {"job_id": "piped", "about": "", "grace": 1.0}
    with town.redis.pipeline() as pipe:
        queues.enqueue_job(target(town), CARRY_OUT, "one", **wish, pipe=pipe)
        assert target(town).get_job_ids() == []
        assert not town.redis.exists("rq:job:piped")
        pipe.reset()
    assert target(town).get_job_ids() == []

    with town.redis.pipeline() as pipe:
        queues.enqueue_job(target(town), CARRY_OUT, "one", **wish, pipe=pipe)
        pipe.execute()

    assert target(town).get_job_ids() == ["piped"]
    assert town.redis.exists("rq:job:piped")


def test_the_same_id_again_is_due_once_more(town: Town) -> None:
    put(town, "again")
    with a_worker(town):
        becomes(town, "again", "finished")
        results = town.redis.xlen("rq:results:again")

        put(town, "again")

        eventually(lambda: town.redis.xlen("rq:results:again") == results + 1, deadline=LONG)
        becomes(town, "again", "finished")


class MakesAFolder:
    """An attacker's pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def smuggle(town: Town, ident: str, data: bytes, **fields: bytes) -> None:
    """Put a job into the queue as any program with write access to this Redis can."""
    values: dict[Any, Any] = {
        "data": zlib.compress(data),
        "origin": target(town).name,
        "status": "queued",
        "timeout": "60",
    }
    town.redis.hset(f"rq:job:{ident}", mapping=values | fields)
    town.redis.rpush(target(town).key, ident)


@pytest.mark.parametrize(
    "function",
    [
        "os.mkdir",
        "gastown_mail.daemon.jobs.os.mkdir",
        "gastown_mail.daemon.jobs.Path",
        "gastown_mail.daemon.jobs.serving.set",
    ],
)
def test_only_our_own_functions_are_run(town: Town, tmp_path: Path, function: str) -> None:
    trap = tmp_path / "trap"
    foreign = Queue(target(town).name, connection=town.redis, serializer=JSONSerializer)
    foreign.enqueue_call(function, args=[str(trap)], job_id="evil", retry=None)
    put(town, "good")

    with a_worker(town) as worker:
        becomes(town, "good", "finished")
        assert lives(worker)

    assert f"refused to run '{function}'" in failure(town, "evil")
    assert not trap.exists()


def test_a_method_of_an_object_is_not_run(town: Town) -> None:
    smuggle(town, "evil", json.dumps([SWEEP, {"an": "instance"}, [], {}]).encode())
    put(town, "good")

    with a_worker(town):
        becomes(town, "good", "finished")

    assert f"refused to run '{SWEEP}'" in failure(town, "evil")


def test_a_pickle_is_not_even_read(town: Town, tmp_path: Path) -> None:
    traps = [tmp_path / name for name in ("data", "meta")]
    smuggle(town, "data", pickle.dumps(MakesAFolder(traps[0])))
    good = json.dumps([SWEEP, None, [], {}]).encode()
    smuggle(town, "meta", good, meta=pickle.dumps(MakesAFolder(traps[1])))
    put(town, "good")

    with a_worker(town) as worker:
        becomes(town, "good", "finished")
        assert lives(worker)

    assert status(town, "data") == "failed"
    assert not any(trap.exists() for trap in traps)


def test_callbacks_and_webhooks_are_ignored(town: Town, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    callback = Callback("os.mkdir")
    foreign = Queue(target(town).name, connection=town.redis, serializer=JSONSerializer)
    for ident, function in (("good", SWEEP), ("bad", "os.mkdir")):
        foreign.enqueue_call(
            function, args=[str(trap)] if ident == "bad" else [], job_id=ident,
            on_success=callback, on_failure=callback, on_stopped=callback,
        )  # fmt: skip

    job: Any = TownJob.fetch("good", connection=town.redis)
    as_rq_sees_it: Any = Job.fetch("good", connection=town.redis, serializer=JSONSerializer)
    assert as_rq_sees_it.success_callback is os.mkdir
    assert job.success_callback is job.failure_callback is job.stopped_callback is None
    with a_worker(town):
        becomes(town, "good", "finished")
        becomes(town, "bad", "failed")
    assert not trap.exists()
    job.send_webhooks("finished")


@pytest.mark.parametrize("function", sorted(ALLOWED_FUNCTIONS))
def test_all_allowed_functions_exist(town: Town, function: str) -> None:
    job = TownJob.create(function, connection=town.redis)

    assert callable(job.func)
    assert job.func.__module__ == queues.JOBS


def test_a_forbidden_function_is_named(town: Town) -> None:
    job = TownJob.create("os.system", args=["true"], connection=town.redis)

    with pytest.raises(GastownError, match=r"refused to run 'os\.system': workers run only"):
        job.perform()
