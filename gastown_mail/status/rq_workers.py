"""Which rq workers live: what they last said to Redis, and what the kernel knows of those that are near."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psutil
from redis import Redis
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gastown_mail.contracts.go_formats import ZERO_TIME, parse_time
from gastown_mail.plumbing.connections import to_strs

WORKER_TIMEOUT = timedelta(seconds=45)
"""A worker that gave no sign for so long is dead: an idle one gives one every 15 s, a busy one every 30 s."""


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker has told Redis: its pid on which machine, and when it gave its last sign of life."""

    pid: int
    machine: str
    last_seen: datetime

    def is_alive(self, now: datetime, *, same_machine: bool) -> bool:
        """Is it at work? `near`: pids that are told on this machine are those that are seen from here."""
        if now - self.last_seen > WORKER_TIMEOUT:
            return False
        return is_running(self.pid) if same_machine and self.machine == socket.gethostname() else True


def is_running(pid: int) -> bool:
    """Is there such a process, neither ended nor stopped (SIGSTOP), as far as this user may see?"""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def registered_workers(redis: Redis, queues: Sequence[str]) -> list[list[WorkerInfo]]:
    """For each of these queues, the workers that Redis knows; dead ones may be among them."""
    with redis.pipeline(transaction=False) as pipe:
        for name in queues:
            pipe.smembers(WORKERS_BY_QUEUE_KEY % name)
        keys = [sorted(found) for found in pipe.execute()]
        for key in (key for found in keys for key in found):
            pipe.hmget(key, ["pid", "hostname", "last_heartbeat"])
        answers = iter(pipe.execute())
    return [[_worker(next(answers)) for _ in found] for found in keys]


def _worker(answer: list[Any]) -> WorkerInfo:
    pid, machine, sign = to_strs(answer)
    return WorkerInfo(int(pid or 0), machine, parse_time(sign) if sign else ZERO_TIME)
