"""Which process of a town keeps its state and pid file: the one that holds the town's lock."""

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, TownLocked
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.connections import redis_errors
from gastown_mail.plumbing.locks import TownLock, remove_pid, write_pid
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.hosts import REPORT_EVERY
from gastown_mail.town.town import Town, recover_after_flush

_TAKEOVER_POLL = 2.0
"""Seconds between two attempts of a process without the lock to acquire it."""

log = logging.getLogger(__name__)


class Leadership:
    """Keeps the town's state inside the block, as soon as this process holds the town's lock.

    A process without the lock waits for it: when the holder ends, others still serve the town, and `running`
    must not stay false.
    """

    def __init__(self, town: Town, lock: TownLock | None) -> None:
        self._town, self._lock = town, lock
        self._published = ExitStack()
        self._tried_at = time.monotonic()
        self._reported_at = -math.inf

    def __enter__(self) -> "Leadership":
        if self._lock:
            self._published.enter_context(_publish_running(self._town))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._published.close()

    def try_take_over(self) -> bool:
        """Take the town over if no process holds its lock; return whether that happened just now."""
        if self._lock or time.monotonic() - self._tried_at < _TAKEOVER_POLL:
            return False
        self._tried_at = time.monotonic()
        lock = TownLock(self._town.settings.lock_file, self._town.host)
        try:
            lock.acquire()
        except TownLocked:
            return False
        try:
            self._published.enter_context(_publish_running(self._town))
            self._lock = lock
        except GastownError as error:
            lock.release()
            log_event(log, "town_not_taken_over", level=logging.WARNING, detail=str(error))
        return self._lock is not None

    def report(self) -> None:
        """Tell Redis now and then that this host is alive, if this process holds the town."""
        if self._lock and time.monotonic() - self._reported_at > REPORT_EVERY:
            self._reported_at = time.monotonic()
            try:
                self._town.report_host()
                recover_after_flush(self._town)
            except (RedisError, GastownError) as error:
                log_event(log, "host_not_reported", level=logging.WARNING, detail=str(error))

    def close_in_child(self) -> None:
        """In a forked child: close the inherited lock, so that only this process holds the town."""
        if self._lock:
            self._lock.close_in_child()

    def announce_stop(self) -> None:
        """Record that the daemon is stopping; workers begin nothing new after that."""
        if not self._lock:
            return
        try:
            recover_after_flush(self._town)
            self._town.state.mark_stopping()
        except (RedisError, GastownError) as error:
            log_event(log, "stop_not_announced", level=logging.WARNING, detail=str(error))


@contextmanager
def _publish_running(town: Town) -> Iterator[None]:
    with redis_errors(town.redis_url):
        recover_after_flush(town)
        town.take_places()
        town.report_host()
        town.state.mark_started(os.getpid(), town.now().astimezone())
        record_event(town.redis, town.keys, EventName.DAEMON_STARTED, pid=os.getpid())
    write_pid(town.settings.pid_file)
    try:
        yield
    finally:
        remove_pid(town.settings.pid_file)
        try:
            with redis_errors(town.redis_url):
                record_event(town.redis, town.keys, EventName.DAEMON_STOPPED, pid=os.getpid())
                town.state.mark_stopped()
                town.hosts.report_end(town.host)
        except RedisUnavailable as error:
            log_event(log, "stop_not_recorded", level=logging.ERROR, detail=str(error))
