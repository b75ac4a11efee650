"""Who keeps a town's state and pid file: the process that has the town's lock, now or from some time on."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import TracebackType

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, TownLocked
from gastown_mail.daemon.town import Town
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.connections import redis_errors
from gastown_mail.plumbing.files import TownLock, remove_pid, write_pid
from gastown_mail.plumbing.log import log_event

TAKEOVER_POLL = 2.0
"""Seconds between two looks of a process without the lock at whether it has become free."""

log = logging.getLogger(__name__)


class Leadership:
    """Keeps the town's state while inside, from the moment this process has the town's lock.

    Without the lock it waits for it: when the process that has it ends, others of the same town still serve
    it, and `running` must not stay false.
    """

    def __init__(self, town: Town, lock: TownLock | None) -> None:
        self._town, self._lock = town, lock
        self._kept = ExitStack()
        self._looked = time.monotonic()

    def __enter__(self) -> "Leadership":
        if self._lock:
            self._kept.enter_context(_publish_running(self._town))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def try_take_over(self) -> bool:
        """Take the town over if nobody has it any more; when Redis does not answer, at the next look."""
        if self._lock or time.monotonic() - self._looked < TAKEOVER_POLL:
            return False
        self._looked = time.monotonic()
        lock = TownLock(self._town.settings.lock_file)
        try:
            lock.acquire()
        except TownLocked:
            return False
        try:
            self._kept.enter_context(_publish_running(self._town))
            self._lock = lock
        except GastownError as error:
            lock.release()
            log_event(log, "town_not_taken_over", level=logging.WARNING, detail=str(error))
        return self._lock is not None

    def close_in_child(self) -> None:
        """In a forked child: let go of the inherited lock, so that only this process keeps the town."""
        if self._lock:
            self._lock.close_in_child()

    def announce_stop(self) -> None:
        """Say that no act is begun any more."""
        if not self._lock:
            return
        try:
            self._town.recover_after_flush()
            self._town.state.mark_stopping()
        except (RedisError, GastownError) as error:
            log_event(log, "stop_not_announced", level=logging.WARNING, detail=str(error))


@contextmanager
def _publish_running(town: Town) -> Iterator[None]:
    with redis_errors(town.redis_url):
        town.recover_after_flush()
        town.state.mark_started(os.getpid(), datetime.now().astimezone())
        record_event(town.redis, town.keys, "daemon_started", pid=os.getpid())
    write_pid(town.settings.pid_file)
    try:
        yield
    finally:
        remove_pid(town.settings.pid_file)
        try:
            with redis_errors(town.redis_url):
                record_event(town.redis, town.keys, "daemon_stopped", pid=os.getpid())
                town.state.mark_stopped()
        except RedisUnavailable as error:
            log_event(log, "stop_not_recorded", level=logging.ERROR, detail=str(error))
