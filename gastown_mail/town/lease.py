"""One act per agent at a time: a lease in Redis that says who has it, kept alive while the act runs."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import LockError, RedisError

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.plumbing.connections import to_str
from gastown_mail.sessions import process_table
from gastown_mail.sessions.processes import alive

LEASE_SECONDS = 10.0
"""Seconds after which the turn of a holder that no longer keeps it alive is free."""

RENEW_EVERY = 2.0

RENEWAL_DEADLINE = 5.0
"""Seconds that giving back waits for a renewal that is on its way."""

LEASE_LOST = "another process has taken over this agent; this one was silent for too long and does no more"


@dataclass(frozen=True)
class LeaseOwner:
    """The process that has a turn, as far as another one can check it."""

    host: str
    namespace: str
    pid: int
    started: float

    @classmethod
    def me(cls, host: str) -> "LeaseOwner":
        """This very process."""
        here = process_table.read_process(os.getpid())
        return cls(host, _namespace(), os.getpid(), here.process.started if here else 0.0)

    @classmethod
    def parse(cls, token: str) -> "LeaseOwner | None":
        """The holder that a token names; None when it cannot be read."""
        try:
            host, namespace, pid, started, _ = token.split("|")
            return cls(host, namespace, int(pid), float(started))
        except ValueError:
            return None

    def token(self) -> str:
        """The text kept in Redis, different for each turn."""
        return f"{self.host}|{self.namespace}|{self.pid}|{self.started}|{time.monotonic_ns()}"

    def is_dead(self, host: str) -> bool:
        """True only when it was a process that this one could see, and it is gone."""
        if (self.host, self.namespace) != (host, _namespace()):
            return False
        return not alive(process_table.Process(self.pid, self.started))


class Lease:
    """The right to act on `key`, renewed by a thread as long as this process has it and runs."""

    def __init__(self, redis: Redis, key: str, host: str) -> None:
        self._redis, self._key, self._host = redis, key, host
        self._lock = redis.lock(key, timeout=LEASE_SECONDS, blocking=False, thread_local=False)
        self._over = threading.Event()
        self._over.set()
        self._keeper: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Is it still this process's turn? False as soon as a renewal found another holder."""
        return not self._over.is_set()

    def check_held(self) -> bool:
        """Ask Redis itself whether the turn is this holder's; raises RedisError."""
        return self.held and bool(self._lock.owned())

    def acquire(self) -> bool:
        """Take the turn; False when a holder that may be alive has it."""
        evict_dead_owner(self._redis, self._key, self._host)
        if self._lock.acquire(token=LeaseOwner.me(self._host).token()):
            self._over = threading.Event()
            self._keeper = threading.Thread(target=self._renew_loop, args=(self._over,), daemon=True)
            self._keeper.start()
        return self.held

    def ensure_held(self) -> None:
        """Raise Unknown unless the turn is still this holder's."""
        if not self.check_held():
            raise StateUnknown(LEASE_LOST)

    def transaction(self, act: Callable[[Any], Any], *watched: str) -> Any:
        """Write to Redis in one transaction that takes place only while the turn is this holder's.

        `act` gets the pipeline, may read from it, then calls `multi()` and writes. Raises Unknown when
        another holder has taken over: whoever was paused for an hour changes nothing any more.
        """

        def while_mine(pipe: Any) -> Any:
            if pipe.get(self._key) != self._lock.local.token:
                raise StateUnknown(LEASE_LOST)
            return act(pipe)

        return self._redis.transaction(while_mine, self._key, *watched, value_from_callable=True)

    def release(self) -> None:
        """End the turn; nothing happens when it is over already. Nobody uses the connection after that."""
        if self.held and self._keeper:
            self._over.set()
            self._keeper.join(RENEWAL_DEADLINE)
            with suppress(RedisError):
                self._lock.release()

    def _renew_loop(self, over: threading.Event) -> None:
        while not over.wait(RENEW_EVERY):
            try:
                self._lock.extend(LEASE_SECONDS, replace_ttl=True)
            except LockError:
                over.set()
            except RedisError:
                continue


@contextmanager
def hold_lease(redis: Redis, key: str, host: str) -> Iterator[Lease | None]:
    """Have the turn of `key` inside the block; None when a holder that may be alive has it."""
    lease = Lease(redis, key, host)
    try:
        yield lease if lease.acquire() else None
    finally:
        lease.release()


def is_held(redis: Redis, key: str, host: str) -> bool:
    """Does a holder that may be alive have this turn? A dead one's turn is freed on the way."""
    evict_dead_owner(redis, key, host)
    return bool(redis.exists(key))


def evict_dead_owner(redis: Redis, key: str, host: str) -> None:
    """Free the turn of a holder that is certainly dead, so that nobody waits for its lease."""
    token: Any = redis.get(key)
    holder = LeaseOwner.parse(to_str(token))
    if holder and holder.is_dead(host):
        redis.transaction(lambda pipe: _delete_if(pipe, key, token), key)


def _delete_if(pipe: Pipeline, key: str, token: bytes) -> None:
    unchanged = pipe.get(key) == token
    pipe.multi()
    if unchanged:
        pipe.delete(key)


def _namespace() -> str:
    here = Path("/proc/self/ns/pid")
    return str(here.readlink()) if here.exists() else ""
