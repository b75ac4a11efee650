"""The daemon: which processes serve a town, from taking the town's lock to giving it back.

Who keeps a town's state and pid file: the process that has the town's lock, now or from some time on."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import TracebackType

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, TmuxMissing, TownLocked
from gastown_mail.contracts.settings import Settings
from gastown_mail.daemon.schedule import PeriodicJob, run_now, run_scheduler_loop
from gastown_mail.daemon.supervisor import ProcessSpec, Supervisor
from gastown_mail.daemon.workers import WORKER_TTL, make_worker
from gastown_mail.lifecycle.clerk import POLL_TIMEOUT, Clerk
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.connections import connect, durability_warnings, redis_errors
from gastown_mail.plumbing.embedded import ensure_server, is_server_running, server_url, stop_server
from gastown_mail.plumbing.locks import TownLock, remove_pid, write_pid
from gastown_mail.plumbing.log import log_event
from gastown_mail.town import queues
from gastown_mail.town.recovery import recover_after_flush
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

log = logging.getLogger(__name__)


def redis_url(settings: Settings) -> str:
    """Where the town's Redis is, whether it runs or not."""
    return settings.daemon.redis_url or server_url(settings.redis_dir)


def open_redis(settings: Settings, warn: Callable[[str], None] = lambda _: None) -> str:
    """The url of the town's Redis, which answers; starts the embedded one. Raises RedisUnavailable.

    Settings of the server that could lose a request are warned of (in the log, and through `warn`), not
    refused.
    """
    url = settings.daemon.redis_url or ensure_server(settings.redis_dir)
    with redis_errors(url), connect(url) as redis:
        redis.ping()
        for warning in durability_warnings(redis):
            log_event(log, "redis_warning", level=logging.WARNING, detail=warning)
            warn(warning)
    return url


def require_tmux() -> None:
    """Raise TmuxMissing when there is no tmux to start sessions with."""
    if shutil.which("tmux") is None:
        raise TmuxMissing("tmux is not on the PATH: install it (apt install tmux, brew install tmux)")


def periodic_jobs(town: Town) -> list[PeriodicJob]:
    """What the scheduler keeps due for the agents of this host."""
    queue, ours = town.keys.heartbeat_queue(town.host), town.settings.daemon
    heartbeat, sweep = town.keys.heartbeat(town.host), town.keys.sweep(town.host)
    named = town.keys.job_id
    return [
        PeriodicJob(
            named("heartbeat", town.host), queues.HEARTBEAT, queue, ours.heartbeat_interval, heartbeat
        ),
        PeriodicJob(named("sweep", town.host), queues.SWEEP, queue, ours.sweep_interval, sweep),
    ]


def run_scheduler(settings: Settings, url: str, stop: threading.Event) -> None:
    """Keep heartbeat and sweep due until `stop` is set."""
    town = Town.open(settings, url)
    heartbeat, sweep = periodic_jobs(town)
    state = town.state.read()
    if state.last_heartbeat < state.started_at:
        run_now(settings.town_name, town.redis, heartbeat.job_id)
    run_scheduler_loop(settings.town_name, town.redis, [heartbeat, sweep], stop)


def run_clerk(
    settings: Settings, url: str, stop: threading.Event, fallback_roster: Roster | None = None
) -> None:
    """Read the inbox until `stop` is set (`known`: see `Town.open`)."""
    Clerk(Town.open(settings, url, blocking=POLL_TIMEOUT, fallback_roster=fallback_roster)).serve(stop)


def run_worker(
    settings: Settings, url: str, name: str, queue: str, fallback_roster: Roster | None = None,
    stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Run the jobs of one queue until rq's SIGTERM; one that comes before rq listens ends it too.

    `stop` is set when one came before this was called.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if stop and stop.is_set():
        return
    town = Town.open(settings, url, fallback_roster=fallback_roster)
    connection = connect(url, blocking=WORKER_TTL)
    make_worker(town, f"{settings.town_name}-{name}", queue, connection).work(logging_level=None)


def worker_processes(settings: Settings, url: str) -> list[ProcessSpec]:
    """The clerk and the rq workers of this host."""
    town = Town.open(settings, url)
    fallback_roster = town.roster()
    lifecycle, heartbeat = town.keys.lifecycle_queue(town.host), town.keys.heartbeat_queue(town.host)
    named = [(f"lifecycle-{number}", lifecycle) for number in range(1, settings.daemon.workers + 1)]
    return [
        ProcessSpec("clerk", lambda stop: run_clerk(settings, url, stop, fallback_roster)),
        *(
            _worker(settings, url, name, queue, fallback_roster)
            for name, queue in (*named, ("heartbeat", heartbeat))
        ),
    ]


def scheduler_process(settings: Settings, url: str) -> ProcessSpec:
    """The process that keeps the periodic jobs due."""
    return ProcessSpec("scheduler", lambda stop: run_scheduler(settings, url, stop))


def _worker(settings: Settings, url: str, name: str, queue: str, fallback_roster: Roster) -> ProcessSpec:
    return ProcessSpec(name, lambda stop: run_worker(settings, url, name, queue, fallback_roster, stop))


def serve(
    settings: Settings, url: str, children: Sequence[ProcessSpec], lock: TownLock | None,
    tick: Callable[[], None] | None = None, *, stopping: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Run the children until SIGTERM or SIGINT; keep the town's state while this process has its lock.

    `tick` is called again and again meanwhile, `stopping` once when it begins to stop.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    town = Town.open(settings, url)
    leadership = Leadership(town, lock)
    supervisor = Supervisor(
        children, in_child=leadership.close_in_child, on_death=lambda _: request_sweep(town)
    )

    def tend() -> None:
        if leadership.try_take_over():
            request_sweep(town)
        _revive_redis(settings, tick or _nothing)

    def begin_to_stop() -> None:
        leadership.announce_stop()
        stopping()

    with leadership:
        request_sweep(town)
        supervisor.run(stop, tend, on_stop=begin_to_stop)


def _revive_redis(settings: Settings, tick: Callable[[], None]) -> None:
    """Start the embedded server again when it has died, then `tick`; one that only hangs is left alone."""
    try:
        if not settings.daemon.redis_url and not is_server_running(settings.redis_dir):
            ensure_server(settings.redis_dir)
            log_event(log, "redis_started_again", level=logging.WARNING)
    except GastownError as error:
        log_event(log, "redis_not_started", level=logging.ERROR, detail=str(error))
    tick()


def _nothing() -> None:
    """Do nothing: nobody looks on."""


def request_sweep(town: Town) -> None:
    """Have what a dead process left picked up now, not at the next sweep."""
    try:
        town.queues.enqueue_sweep(town.host)
    except RedisError as error:
        log_event(log, "sweep_not_requested", level=logging.WARNING, detail=str(error))


def lock_town(settings: Settings) -> TownLock:
    """Take the town's lock; raises TownHeld with the pid of the daemon that has it."""
    lock = TownLock(settings.lock_file)
    lock.acquire()
    return lock


def try_lock_town(settings: Settings) -> TownLock | None:
    """The town's lock, or None when another process keeps the town's state already."""
    try:
        return lock_town(settings)
    except TownLocked:
        return None


def stop_embedded(settings: Settings) -> None:
    """End the embedded server, if the town has one; it is started again by the next `up`."""
    if not settings.daemon.redis_url:
        stop_server(settings.redis_dir)


TAKEOVER_POLL = 2.0
"""Seconds between two looks of a process without the lock at whether it has become free."""


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
            recover_after_flush(self._town)
            self._town.state.mark_stopping()
        except (RedisError, GastownError) as error:
            log_event(log, "stop_not_announced", level=logging.WARNING, detail=str(error))


@contextmanager
def _publish_running(town: Town) -> Iterator[None]:
    with redis_errors(town.redis_url):
        recover_after_flush(town)
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
