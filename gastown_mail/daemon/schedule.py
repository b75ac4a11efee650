"""Heartbeat and sweep as periodic jobs: the only file that knows rq-scheduler.

It makes up for what rq-scheduler 0.14 lacks: a schedule lost between its ZREM and ZADD is registered again;
its lock has an owner; a job that is still queued is not queued a second time; the keys belong to one town, so
other users of the same Redis are not touched.
"""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.exceptions import LockError, RedisError
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq_scheduler import Scheduler

from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import to_strs
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.queues import (
    ALLOWED_FUNCTIONS,
    TownJob,
    TownQueue,
    is_wrong_type,
    open_queue,
    remove_unless,
)

_POLL = 1
"""Seconds between two checks of the schedule; rq-scheduler counts in whole seconds."""

LOCK_LEASE = 5.0
_NEVER_EXPIRES = -1

PERIODIC_TIMEOUT = 120
"""rq gives up a heartbeat or sweep of a dead worker after this many seconds plus a minute."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeriodicJob:
    """A job function to run every `interval` seconds; `lock` is the lease it holds while it runs."""

    job_id: str
    function: str
    queue: str
    interval: float
    lock: str

    @property
    def seconds(self) -> int:
        """The interval in whole seconds, at least one."""
        return max(1, math.ceil(self.interval))


class _CoalescingQueue(TownQueue):
    """A queue that takes a periodic job only if it is neither queued nor running: missed ones merge."""

    def enqueue_job(self, job: Job, *arguments: Any, **options: Any) -> Job:
        """Enqueue the job unless it is queued or running already."""
        queued = self.connection.lpos(self.key, job.id) is not None
        if queued or self.connection.exists(job.meta["lock"]):
            return job
        return super().enqueue_job(job, *arguments, **options)


class TownScheduler(Scheduler):  # type: ignore[misc]
    """rq-scheduler on the keys of one town, with JSON jobs and a lock that only its owner releases."""

    job_class = TownJob
    queue_class = _CoalescingQueue

    def __init__(self, town: str, redis: Redis) -> None:
        prefix = f"rq:scheduler:gastown-{town}"
        self.scheduled_jobs_key = f"{prefix}:scheduled_jobs"
        self._lock = redis.lock(f"{prefix}:lock", timeout=LOCK_LEASE, blocking=False, thread_local=False)
        super().__init__(connection=redis, interval=_POLL)

    def now(self) -> float:
        """The time of Redis in epoch seconds: the schedule of all hosts goes by it."""
        return redis_time(self.connection)

    def enqueue_jobs(self) -> None:
        """Enqueue what is due; an entry that is no job of a town is removed, and the others go on."""
        due: Any = self.connection.zrange(self.scheduled_jobs_key, "-inf", self.now(), byscore=True)
        for job_id in to_strs(due):
            try:
                job = TownJob.fetch(job_id, connection=self.connection)
                _check_periodic(job)
            except NoSuchJobError as error:
                self.connection.zrem(self.scheduled_jobs_key, job_id)
                log_event(log, "foreign_job_removed", level=logging.WARNING, job=job_id, detail=str(error))
            else:
                self.enqueue_job(job)

    def get_queue_for_job(self, job: Job) -> _CoalescingQueue:
        """The queue that the job names, never of a class that it names."""
        return _CoalescingQueue(job.origin, connection=self.connection, serializer=JSONSerializer)

    def remove_foreign_keys(self, jobs: Sequence[PeriodicJob]) -> None:
        """Delete the keys of the schedule and of its jobs that hold something else."""
        remove_unless(self.connection, "zset", self.scheduled_jobs_key)
        for job in jobs:
            remove_unless(self.connection, "hash", TownJob.key_for(job.job_id))
            remove_unless(self.connection, "list", open_queue(job.queue, self.connection).key)

    def enqueue_job(self, job: Job) -> None:
        """Enqueue a job that is due, and schedule it again."""
        self.get_queue_for_job(job).enqueue_job(job)
        self.connection.zadd(self.scheduled_jobs_key, {job.id: self.now() + job.meta["interval"]}, xx=True)

    def correct(self, job: PeriodicJob) -> None:
        """Make a job due that is scheduled later than an interval from now: a clock was ahead then."""
        due = self.connection.zscore(self.scheduled_jobs_key, job.job_id)
        now = self.now()
        if due is not None and due > now + job.seconds + _POLL:
            self.connection.zadd(self.scheduled_jobs_key, {job.job_id: now}, xx=True)

    def acquire_lock(self) -> bool:
        """Acquire the right to enqueue; the lock of a dead scheduler ends with its lease."""
        if self._lock.acquire():
            return True
        if self.connection.ttl(self._lock.name) == _NEVER_EXPIRES:  # no scheduler's
            self.connection.delete(self._lock.name)
        return False

    def remove_lock(self) -> None:
        """Release the lock if this scheduler still holds it."""
        try:
            self._lock.release()
        except LockError:
            log.debug("the schedule's lock had expired")


def _check_periodic(job: Job) -> None:
    """Raise NoSuchJobError for a job that `register` has not made."""
    meta = job.meta if isinstance(job.meta, dict) else {}
    made_here = isinstance(meta.get("lock"), str) and isinstance(meta.get("interval"), int)
    try:
        name = job.func_name
    except DeserializationError:
        name = None
    if name not in ALLOWED_FUNCTIONS or not made_here:
        raise NoSuchJobError(f"{name} is no periodic job of a town")


def run_scheduler_loop(town: str, redis: Redis, jobs: Sequence[PeriodicJob], stop: threading.Event) -> None:
    """Enqueue what is due until `stop` is set; wait while Redis does not answer."""
    scheduler = TownScheduler(town, redis)
    while not stop.is_set():
        try:
            tick(scheduler, jobs)
        except RedisError as error:
            log_event(log, "schedule_waits", level=logging.WARNING, detail=str(error))
            if is_wrong_type(error):
                scheduler.remove_foreign_keys(jobs)
        stop.wait(_POLL)


def tick(scheduler: TownScheduler, jobs: Sequence[PeriodicJob]) -> None:
    """Register what is missing, then enqueue what is due."""
    if not scheduler.acquire_lock():
        return
    try:
        for job in jobs:
            if _registered_interval(scheduler, job) != job.seconds:
                register(scheduler, job)
            scheduler.correct(job)
        scheduler.enqueue_jobs()
    finally:
        scheduler.remove_lock()


def register(scheduler: TownScheduler, job: PeriodicJob, first: datetime | None = None) -> None:
    """Put a periodic job on the schedule, due at once or at `first`."""
    scheduler.schedule(
        scheduled_time=first or datetime.fromtimestamp(scheduler.now(), UTC), func=job.function,
        interval=job.seconds, id=job.job_id,
        queue_name=job.queue, description=job.function.rpartition(".")[2], meta={"lock": job.lock},
        timeout=PERIODIC_TIMEOUT,
    )  # fmt: skip
    log_event(log, "scheduled", job=job.job_id, interval=job.seconds)


def run_now(town: str, redis: Redis, job_id: str) -> None:
    """Make a scheduled job due now."""
    scheduler = TownScheduler(town, redis)
    redis.zadd(scheduler.scheduled_jobs_key, {job_id: scheduler.now()}, xx=True)


def next_due(town: str, redis: Redis, job_id: str) -> datetime | None:
    """When a periodic job is due next; None when it is not on the schedule."""
    score = redis.zscore(TownScheduler(town, redis).scheduled_jobs_key, job_id)
    try:
        return None if score is None else datetime.fromtimestamp(float(score), UTC)
    except (OverflowError, OSError, ValueError):  # the scheduler sets it right at its next look
        return None


def _registered_interval(scheduler: TownScheduler, job: PeriodicJob) -> int | None:
    if job.job_id not in scheduler:
        return None
    try:
        found = TownJob.fetch(job.job_id, connection=scheduler.connection)
        known = (found.func_name, found.origin, found.meta.get("lock"))
    except (NoSuchJobError, DeserializationError):
        # lost, or overwritten in part by rq
        return None
    interval: int | None = found.meta.get("interval")
    return interval if known == (job.function, job.queue, job.lock) else None
