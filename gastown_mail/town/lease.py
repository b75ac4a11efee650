"""One operation per agent at a time: a lease in Redis that names its owner and is renewed meanwhile."""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from gastown_mail.contracts.errors import Postponed
from gastown_mail.plumbing.connections import to_str
from gastown_mail.plumbing.machine import boot_id
from gastown_mail.sessions import process_table
from gastown_mail.sessions.processes import alive

LEASE_SECONDS = 10.0
"""Seconds without renewal after which a lease is free."""

_RENEW_EVERY = 2.0

_RENEWAL_TIMEOUT = 5.0
"""Seconds that `release` waits for a renewal that is under way."""

_LOST = "another process has taken over this agent; this one was silent for too long and stops here"


@dataclass(frozen=True)
class LeaseOwner:
    """The process that holds a lease, as far as another process can check it."""

    host: str
    namespace: str
    pid: int
    started: float

    @classmethod
    def me(cls, host: str) -> "LeaseOwner":
        """This process."""
        here = process_table.read_process(os.getpid())
        return cls(host, _pid_namespace(), os.getpid(), here.started if here else 0.0)

    @classmethod
    def parse(cls, token: str) -> "LeaseOwner | None":
        """The owner that a token names; None when it cannot be read."""
        try:
            host, namespace, pid, started, _ = token.split("|")
            return cls(host, namespace, int(pid), float(started))
        except ValueError:
            return None

    def token(self) -> str:
        """The text stored in Redis, different for each lease."""
        return f"{self.host}|{self.namespace}|{self.pid}|{self.started}|{time.monotonic_ns()}"

    def is_dead(self, host: str) -> bool:
        """True only when it was a process visible from here and it has ended."""
        if (self.host, self.namespace) != (host, _pid_namespace()):
            return False
        return not alive(process_table.Process(self.pid, self.started))


class Lease:
    """A lease on `key`. A background thread renews it until `release()`."""

    def __init__(self, redis: Redis, key: str, host: str) -> None:
        self._redis, self._key, self._host = redis, key, host
        self._lock = redis.lock(key, timeout=LEASE_SECONDS, blocking=False, thread_local=False)
        self._over = threading.Event()
        self._over.set()
        self._renewer: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process still holds it; False as soon as a renewal found another owner."""
        return not self._over.is_set()

    def check_held(self) -> bool:
        """Ask Redis whether this process still holds it. Raises RedisError."""
        return self.held and bool(self._lock.owned())

    def acquire(self) -> bool:
        """Acquire the lease; False when an owner that may be alive holds it."""
        _evict_dead_owner(self._redis, self._key, self._host)
        if self._lock.acquire(token=LeaseOwner.me(self._host).token()):
            self._over = threading.Event()
            self._renewer = threading.Thread(target=self._renew_loop, args=(self._over,), daemon=True)
            self._renewer.start()
        return self.held

    def ensure_held(self) -> None:
        """Raise Postponed unless this process still holds the lease."""
        if not self.check_held():
            raise Postponed(_LOST)

    def transaction(self, act: Callable[[Any], Any], *watched: str) -> Any:
        """Run a transaction that fails if the lease has been lost; return what `act` returns.

        `act` gets the pipeline, may read from it, then calls `multi()` and writes. Raises Postponed when
        another process holds the lease: one that was paused for an hour changes nothing any more.
        """

        def while_held(pipe: Any) -> Any:
            if pipe.get(self._key) != self._lock.local.token:
                raise Postponed(_LOST)
            return act(pipe)

        return self._redis.transaction(while_held, self._key, *watched, value_from_callable=True)

    def release(self) -> None:
        """Release the lease, unless it is lost. After that the renewer no longer uses the connection."""
        if self.held and self._renewer:
            self._over.set()
            self._renewer.join(_RENEWAL_TIMEOUT)
            with suppress(RedisError):
                self._lock.release()

    def _renew_loop(self, over: threading.Event) -> None:
        while not over.wait(_RENEW_EVERY):
            try:
                self._lock.extend(LEASE_SECONDS, replace_ttl=True)
            except LockError:
                over.set()
            except RedisError:
                continue


@contextmanager
def hold_lease(redis: Redis, key: str, host: str) -> Iterator[Lease | None]:
    """Hold the lease on `key` inside the block; None when an owner that may be alive holds it."""
    lease = Lease(redis, key, host)
    try:
        yield lease if lease.acquire() else None
    finally:
        lease.release()


@contextmanager
def hold_leases(redis: Redis, keys: Mapping[str, str], host: str) -> Iterator[set[str]]:
    """Hold many leases inside the block, `keys` by name; yields the names of those that were free."""
    token = LeaseOwner.me(host).token()
    held = _acquire_free(redis, keys, token)
    for name in keys.keys() - held:
        _evict_dead_owner(redis, keys[name], host)
    held |= _acquire_free(redis, {name: keys[name] for name in keys.keys() - held}, token)
    locks = [redis.lock(keys[name], timeout=LEASE_SECONDS, thread_local=False) for name in held]
    for lock in locks:
        lock.local.token = token.encode()
    over = threading.Event()
    renewer = threading.Thread(target=_renew_all, args=(locks, over), daemon=True)
    renewer.start()
    try:
        yield held
    finally:
        over.set()
        renewer.join(_RENEWAL_TIMEOUT)
        for lock in locks:
            with suppress(RedisError):
                lock.release()


def _acquire_free(redis: Redis, keys: Mapping[str, str], token: str) -> set[str]:
    with redis.pipeline(transaction=False) as pipe:
        for key in keys.values():
            pipe.set(key, token, nx=True, px=int(LEASE_SECONDS * 1000))
        return {name for name, done in zip(keys, pipe.execute(), strict=True) if done}


def _renew_all(locks: Collection[Lock], over: threading.Event) -> None:
    while not over.wait(_RENEW_EVERY):
        for lock in locks:
            with suppress(RedisError):
                lock.extend(LEASE_SECONDS, replace_ttl=True)


def is_held(redis: Redis, key: str, host: str) -> bool:
    """Whether an owner that may be alive holds the lease; the lease of a dead one is freed on the way."""
    _evict_dead_owner(redis, key, host)
    return bool(redis.exists(key))


def _evict_dead_owner(redis: Redis, key: str, host: str) -> None:
    """Free the lease of an owner that is certainly dead, so that no process waits for it to run out."""
    token: Any = redis.get(key)
    owner = LeaseOwner.parse(to_str(token))

    def delete_if_unchanged(pipe: Pipeline) -> None:
        unchanged = pipe.get(key) == token
        pipe.multi()
        if unchanged:
            pipe.delete(key)

    if owner and owner.is_dead(host):
        redis.transaction(delete_if_unchanged, key)


@cache
def _pid_namespace() -> str:
    # with the boot: the first namespace of every machine has the same number
    here = Path("/proc/self/ns/pid")
    return f"{here.readlink()}@{boot_id()}" if here.exists() else ""
