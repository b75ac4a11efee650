"""The rq worker of a town, and the only functions that it runs.

Most of a job is waiting: for an agent to end, for a new session to stay up. So a worker runs each job in a
thread of its own and takes the next one meanwhile; rq's own worker would fork a process for each job and wait
for it. Killing a worker cuts off all its jobs; each is resumed later (see `lifecycle.carry_out`).
"""

import logging
import threading
import time
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now
from rq.worker import WorkerStatus

from gastown_mail.contracts.errors import GastownError, StateUnknown
from gastown_mail.lifecycle import carry_out as requests
from gastown_mail.lifecycle import heartbeat as rounds
from gastown_mail.lifecycle.heartbeat import poke_agent
from gastown_mail.lifecycle.release import release_agent
from gastown_mail.lifecycle.start import start_agent
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.lease import hold_lease
from gastown_mail.town.queues import RESULT_KEPT, TownJob, TownQueue, open_queue, remove_unless
from gastown_mail.town.town import Town

log = logging.getLogger(__name__)

serving: ContextVar[Town] = ContextVar("serving")
"""The town of the worker that runs the job; `TownWorker` sets it."""


def _town() -> Town:
    try:
        return serving.get()
    except LookupError:
        raise GastownError(
            "this worker serves no town; start it with worker.py or `gastown-mail up`"
        ) from None


def carry_out(request_id: str) -> str:
    """Carry out one request; return its status (see `lifecycle.carry_out`)."""
    return requests.carry_out_request(_town(), request_id)


def start(address: str, why: str, by: str = "") -> str:
    """Start the agent's session unless one is alive or it should not run; return the outcome as text."""
    return str(start_agent(_town(), address, why, by))


def release(address: str) -> str:
    """End the agent's session here and leave its place to the host that it moves to; return the outcome."""
    return release_agent(_town(), address)


def poke(address: str, text: str = "", until: str = "inf") -> str:
    """Poke one agent now, because an operator asked for it; return the outcome as text.

    `until`: epoch seconds after which nobody waits for it any more.
    """
    return str(poke_agent(_town(), address, text, float(until)))


def heartbeat() -> str:
    """Run one heartbeat unless one is running; return what it did."""
    town = _town()
    with hold_lease(town.redis, town.keys.heartbeat(town.host), town.host) as lease:
        if not lease:
            return "another heartbeat is running"
        try:
            return f"heartbeat {rounds.run_heartbeat(town).heartbeat_count}"
        except StateUnknown as error:
            record_event(town.redis, town.keys, EventName.HEARTBEAT_FAILED, detail=str(error))
            return f"failed: {error}"


def sweep() -> str:
    """Resume work left by dead processes, unless a sweep is running; return what it did."""
    town = _town()
    with hold_lease(town.redis, town.keys.sweep(town.host), town.host) as lease:
        if not lease:
            return "another sweep is running"
        began = time.monotonic()
        try:
            requeued = rounds.run_sweep(town)
        except StateUnknown as error:
            return f"failed: {error}"
        took = round((time.monotonic() - began) * 1000)
        log_event(log, "swept", level=logging.DEBUG, requeued=requeued, took_ms=took)
        return f"{requeued} requeued"


_MAX_CONCURRENT_JOBS = 32
"""How many jobs one worker runs at a time; an agent that takes a minute to end occupies one slot."""

WORKER_TTL = 30
"""Seconds between the heartbeats of an idle worker; rq's 420 would hide a hung Redis for 7 min."""

_MAINTENANCE_INTERVAL = 30

_DRAIN_DEADLINE = 10.0
"""Seconds for which a stopping worker lets its jobs finish; a job that is cut off is resumed later."""

_MAX_RECONNECT_WAIT = 2.0
"""Seconds at most between two attempts to reach Redis; rq's 60 would prolong an outage."""


class _NoDeathPenalty(BaseDeathPenalty):
    """rq's job timeout, which does nothing here.

    In a thread it would raise an exception at any point, even during cleanup or in another job. Every wait
    inside a job has a deadline of its own.
    """

    def setup_death_penalty(self) -> None:
        """Does nothing."""

    def cancel_death_penalty(self) -> None:
        """Does nothing."""


class TownWorker(SimpleWorker):
    """Runs each job in a thread; ends when Redis no longer knows this worker."""

    job_class = TownJob
    queue_class = TownQueue
    death_penalty_class = _NoDeathPenalty
    max_connection_wait_time = _MAX_RECONNECT_WAIT
    town: Town | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._free = threading.Semaphore(_MAX_CONCURRENT_JOBS)
        self._threads: list[threading.Thread] = []

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Start the job, and return when another one can be started."""
        self._free.acquire()
        try:
            arguments = (job, queue, self.prepare_execution(job))
            thread = threading.Thread(target=self._run, args=arguments, name=job.id, daemon=True)
            thread.start()
            self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
        except BaseException:
            self._free.release()
            raise
        self.set_state(WorkerStatus.IDLE)
        while not self._free.acquire(timeout=WORKER_TTL):
            self.heartbeat()
        self._free.release()

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Set the worker's own state; others see it as busy as long as a job runs."""
        self._state = state
        self._show(state, pipeline)

    def _show(self, state: str, pipeline: Pipeline | None = None) -> None:
        shown = WorkerStatus.BUSY if self.executions else state
        (self.connection if pipeline is None else pipeline).hset(self.key, "state", shown)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """rq's heartbeat of the worker; raises StopRequested when a flushed Redis no longer knows it."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            return
        with self.connection.pipeline(transaction=False) as pipe:
            super().heartbeat(timeout, pipe)
            pipe.sismember(self.redis_workers_keys, self.key)
            *_, is_registered = pipe.execute()
        if not is_registered:
            self.log.warning("Worker %s: no longer registered; it ends and is started again", self.name)
            raise StopRequested

    def teardown(self) -> None:
        """Let running jobs finish, then leave; a second SIGTERM or the deadline cuts them off."""
        # busy, so that rq notes a first SIGTERM that comes only now, and raises nothing
        self._state = WorkerStatus.BUSY
        until = time.monotonic() + _DRAIN_DEADLINE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        super().teardown()  # type: ignore[no-untyped-call]

    def _run(self, job: Job, queue: Queue, execution: Execution) -> None:
        try:
            if self.town:
                serving.set(self.town)
            self.perform_job(job, queue, execution)
            self._show(self._state)
        except Exception:
            log.exception("job %s did not end properly; the sweep will resume its request", job.id)
        finally:
            self.executions.pop(execution.id, None)
            self._free.release()

    def clean_registries(self) -> None:
        """Clean up after dead workers; an entry that rq cannot read does not end this one."""
        try:
            super().clean_registries()  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError):
            raise
        except Exception:
            log.exception("rq's registries were not cleaned")
            self.last_cleaned_at = now()  # type: ignore[assignment]

    def _set_ip_address(self, connection: Redis) -> None:
        # redis-py cannot read CLIENT INFO when the socket's path has a space in it
        self.ip_address = "unknown"
        connection.client_setname(self.name)


def make_worker(town: Town, name: str, queue_name: str, redis: Redis) -> TownWorker:
    """A worker of that one queue; `name` gets a random suffix: a fixed one would block its successor."""
    worker = TownWorker(
        [open_queue(queue_name, redis)], name=f"{name}-{uuid4().hex[:8]}", connection=redis,
        serializer=JSONSerializer, worker_ttl=WORKER_TTL, maintenance_interval=_MAINTENANCE_INTERVAL,
        default_result_ttl=RESULT_KEPT, log_job_description=False,
    )  # fmt: skip
    worker.town = town
    for queue in worker.queues:
        remove_unless(redis, "list", queue.key, queue.intermediate_queue.key)
        registries = (queue.started_job_registry, queue.finished_job_registry, queue.failed_job_registry)
        remove_unless(redis, "zset", *(registry.key for registry in registries))
    return worker
