"""rq as the daemon uses it: JSON payloads, only its own job functions, one queue per worker process.

Nothing written into Redis makes a worker run other code: a job names one of `ALLOWED_FUNCTIONS` or it fails,
and callbacks and webhooks of a job are ignored.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import new_request_id
from gastown_mail.plumbing.connections import to_str
from gastown_mail.plumbing.log import log_event

JOBS = "gastown_mail.daemon.jobs"
CARRY_OUT, START, POKE = f"{JOBS}.carry_out", f"{JOBS}.start", f"{JOBS}.poke"
RELEASE = f"{JOBS}.release"
HEARTBEAT, SWEEP = f"{JOBS}.heartbeat", f"{JOBS}.sweep"
ALLOWED_FUNCTIONS = frozenset({CARRY_OUT, START, POKE, RELEASE, HEARTBEAT, SWEEP})

JOB_MARGIN = 60
"""Seconds a job may take beyond the stop_grace of the session it ends; every wait inside is shorter."""

_MAX_CRASH_RETRIES = 3
"""How many times rq runs a job again after its process died."""

RESULT_KEPT, _FAILURE_KEPT = 3600, 7 * 24 * 3600

log = logging.getLogger(__name__)


class TownJob(Job):
    """A job that can only run one of `ALLOWED_FUNCTIONS`."""

    def __init__(
        self, id: str | None = None, connection: Redis | None = None, serializer: Any = None
    ) -> None:
        super().__init__(id, connection, serializer or JSONSerializer)

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> Job:
        """The job of that id. Raises NoSuchJobError too if it cannot be read: rq goes on without it."""
        try:
            return super().fetch(id, connection, serializer)
        except Exception as error:
            # rq has an error of its own for each field that may be bad
            if isinstance(error, NoSuchJobError) or (
                isinstance(error, RedisError) and not is_wrong_type(error)
            ):
                raise
            raise NoSuchJobError(f"{id} cannot be read: {error}") from None

    @property
    def func(self) -> Callable[..., Any]:
        """The job function; raises GastownError for anything that is not in `ALLOWED_FUNCTIONS`."""
        if self.func_name not in ALLOWED_FUNCTIONS or self.instance is not None:
            raise GastownError(f"refused to run {self.func_name!r}: workers run only the functions of {JOBS}")
        function: Callable[..., Any] = super().func
        return function

    @property
    def success_callback(self) -> None:
        """Ignored: it could name any function."""

    @property
    def failure_callback(self) -> None:
        """Ignored: it could name any function."""

    @property
    def stopped_callback(self) -> None:
        """Ignored: it could name any function."""

    def send_webhooks(self, *_: object, **__: object) -> None:
        """Ignored: it could name any address."""


class TownQueue(Queue):
    """A queue of `TownJob`s."""

    job_class = TownJob


def is_wrong_type(error: RedisError) -> bool:
    """Whether Redis has refused a command because the key holds something else, which is not ours."""
    return str(error).startswith("WRONGTYPE")


def remove_unless(redis: Redis, kind: str, *keys: str) -> None:
    """Delete those of these keys that exist and are not of this kind: what rq cannot use would stop it."""
    for key in keys:
        if to_str(redis.type(key)) not in (kind, "none"):
            redis.delete(key)
            log_event(log, "foreign_key_removed", level=logging.WARNING, detail=f"{key} was no {kind}")


def open_queue(name: str, redis: Redis) -> TownQueue:
    """The rq queue of that name, with JSON payloads."""
    return TownQueue(name, connection=redis, serializer=JSONSerializer)


class JobQueues:
    """The rq queues of one town, and the jobs that are put on them."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis, self._keys = redis, keys
        self._opened: dict[str, TownQueue] = {}

    def lifecycle(self, host: str) -> TownQueue:
        """The queue of requests, starts and pokes for the agents of that host."""
        return self._open(self._keys.lifecycle_queue(host))

    def heartbeat(self, host: str) -> TownQueue:
        """The queue of that host's heartbeats and sweeps."""
        return self._open(self._keys.heartbeat_queue(host))

    def enqueue_request(self, request_id: str, agent: Agent, pipe: Pipeline | None = None) -> None:
        """Have the request carried out on its agent's host; repeating this is harmless."""
        enqueue_job(
            self.lifecycle(agent.host), CARRY_OUT, request_id, job_id=self.request_job_id(request_id),
            about=f"request {request_id} for {agent.address}", grace=agent.stop_grace, pipe=pipe,
        )  # fmt: skip

    def drop_requests(self, request_ids: Sequence[str], host: str) -> None:
        """Take the jobs of settled requests off their queue, unless a worker has them: others wait behind."""
        jobs, queue = [self.request_job_id(request_id) for request_id in request_ids], self.lifecycle(host)
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in jobs:
                pipe.lrem(queue.key, 1, job_id)
            removed = pipe.execute()
        if keys := [TownJob.key_for(job_id) for job_id, was in zip(jobs, removed, strict=True) if was]:
            self._redis.delete(*keys)

    def enqueue_start(self, agent: Agent, why: str, pipe: Pipeline | None = None, *, by: str = "") -> Job:
        """Have the agent started unless it runs (`by`: see `lifecycle.start.start_agent`)."""
        return enqueue_job(
            self.lifecycle(agent.host), START, agent.address, why, by, job_id=self.start_job_id(agent),
            about=f"start {agent.address}", grace=agent.stop_grace, pipe=pipe,
        )  # fmt: skip

    def enqueue_release(self, agent: Agent, host: str) -> None:
        """Have this host end the agent's session and leave its place to the host that it moves to."""
        enqueue_job(
            self.lifecycle(host), RELEASE, agent.address, about=f"release {agent.address}",
            job_id=self._keys.job_id("release", f"{host}_{agent.address}"), grace=agent.stop_grace,
        )  # fmt: skip

    def enqueue_poke(self, agent: Agent, text: str, until: float) -> Job:
        """Have the text typed into the agent's session until then (epoch seconds).

        An empty text means the agent's own poke.
        """
        job_id = self._keys.job_id("poke", new_request_id())
        about = f"poke {agent.address}"
        return enqueue_job(
            self.lifecycle(agent.host), POKE, agent.address, text, str(until), job_id=job_id, about=about
        )

    def enqueue_sweep(self, host: str) -> None:
        """Have the work of a dead process resumed now, not at the next sweep."""
        job_id = self._keys.job_id("sweep-now", host)
        enqueue_job(self.heartbeat(host), SWEEP, job_id=job_id, about="sweep now")

    def request_job_id(self, request_id: str) -> str:
        """rq's id of the job that carries out this request."""
        return self._keys.job_id("request", request_id)

    def start_job_id(self, agent: Agent) -> str:
        """rq's id of the job that starts this agent."""
        return self._keys.job_id("start", agent.address)

    def _open(self, name: str) -> TownQueue:
        if name not in self._opened:
            self._opened[name] = open_queue(name, self._redis)
        return self._opened[name]


def enqueue_job(
    target: TownQueue, function: str, *arguments: str, job_id: str, about: str, grace: float = 0.0,
    pipe: "Pipeline | None" = None,
) -> Job:  # fmt: skip
    """Enqueue one of `ALLOWED_FUNCTIONS`; the same id again replaces the job and makes it due once more."""
    job_data = target.prepare_data(
        function, args=arguments, job_id=job_id, description=about, timeout=int(grace) + JOB_MARGIN,
        result_ttl=RESULT_KEPT, failure_ttl=_FAILURE_KEPT, retry=Retry(max=_MAX_CRASH_RETRIES),
    )  # fmt: skip
    # enqueue_call would begin a transaction of its own on the pipeline
    return target.enqueue_many([job_data], pipeline=pipe)[0]
