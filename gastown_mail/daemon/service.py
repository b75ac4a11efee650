"""The daemon: the processes that serve a town, from acquiring its lock to releasing it."""

import logging
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError, TmuxMissing, TownLocked
from gastown_mail.contracts.identity import load_identity
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.settings import Settings
from gastown_mail.daemon.jobs import WORKER_TTL, make_worker
from gastown_mail.daemon.leadership import Leadership
from gastown_mail.daemon.schedule import PeriodicJob, run_now, run_scheduler_loop
from gastown_mail.daemon.supervisor import ProcessSpec, Supervisor
from gastown_mail.lifecycle.clerk import POLL_TIMEOUT, Clerk
from gastown_mail.plumbing.connections import connect, durability_warnings, redis_errors, refuse_cluster
from gastown_mail.plumbing.embedded import ensure_server, is_server_running, server_url, stop_server
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.plumbing.log import log_event
from gastown_mail.plumbing.private_files import prepare_private_files
from gastown_mail.town import queues
from gastown_mail.town.hosts import Hosts
from gastown_mail.town.identity import claim_folder, claim_name
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town, host_entry

log = logging.getLogger(__name__)


def redis_url(settings: Settings) -> str:
    """The URL of the town's Redis, whether it runs or not."""
    return settings.daemon.redis_url or server_url(settings.redis_dir)


def open_redis(settings: Settings, warn: Callable[[str], None] = lambda _: None) -> str:
    """Start the embedded Redis if needed; return the URL of one that answers. Raises RedisUnavailable.

    First the folder is claimed: raises SettingsError for a copy of a town, and when Redis serves another town
    of this name. Server settings that could lose a request are warnings, in the log and through `warn`.
    """
    claim_folder(settings)
    url = settings.daemon.redis_url or ensure_server(settings.redis_dir)
    with redis_errors(url), connect(url) as redis:
        redis.ping()
        refuse_cluster(redis, url)
        for warning in durability_warnings(redis):
            log_event(log, "redis_warning", level=logging.WARNING, detail=warning)
            warn(warning)
        claim_name(redis, settings)
        identity, keys = load_identity(settings.daemon_dir), Keys(settings.town_name)
        Hosts(redis, keys).claim(settings.host, host_entry(settings, identity))
    return url


def stop_embedded(settings: Settings) -> None:
    """Stop the embedded server, if the town has one; the next start starts it again."""
    if not settings.daemon.redis_url:
        stop_server(settings.redis_dir)


def end_empty_tmux(settings: Settings) -> None:
    """End the town's own tmux server if no program lives on it; one that town.toml names is left alone."""
    if settings.daemon.tmux_socket:
        return
    try:
        Town.open(settings, redis_url(settings)).sessions.end_empty_server()
    except GastownError as error:
        log_event(log, "tmux_not_ended", level=logging.WARNING, detail=str(error))


def require_tmux() -> None:
    """Raise TmuxMissing when there is no tmux to start sessions with."""
    if shutil.which("tmux") is None:
        raise TmuxMissing("tmux is not on the PATH: install it (apt install tmux, brew install tmux)")


def town_lock(settings: Settings) -> TownLock:
    """The town's lock, not acquired yet. Raises SettingsError if its folder cannot be used."""
    prepare_private_files(settings.daemon_dir)
    return TownLock(settings.lock_file, settings.host)


def lock_town(settings: Settings) -> TownLock:
    """Acquire the town's lock. Raises TownLocked with the pid of the daemon that holds it."""
    lock = town_lock(settings)
    lock.acquire()
    return lock


def try_lock_town(settings: Settings) -> TownLock | None:
    """The town's lock; None when another process holds it and keeps the town's state."""
    try:
        return lock_town(settings)
    except TownLocked:
        return None


def periodic_jobs(town: Town) -> list[PeriodicJob]:
    """The jobs that the scheduler enqueues for this host: heartbeat and sweep."""
    keys, host, daemon = town.keys, town.host, town.settings.daemon
    queue = keys.heartbeat_queue(host)
    return [
        PeriodicJob(
            keys.job_id("heartbeat", host), queues.HEARTBEAT, queue, daemon.heartbeat_interval,
            lock=keys.heartbeat(host),
        ),
        PeriodicJob(
            keys.job_id("sweep", host), queues.SWEEP, queue, daemon.sweep_interval, lock=keys.sweep(host)
        ),
    ]  # fmt: skip


def run_scheduler(settings: Settings, url: str, stop: threading.Event) -> None:
    """Enqueue heartbeats and sweeps when they are due, until `stop` is set."""
    town = Town.open(settings, url)
    heartbeat, sweep = periodic_jobs(town)
    state = town.state.read()
    if state.last_heartbeat < state.started_at:
        run_now(settings.town_name, town.redis, heartbeat.job_id)
    run_scheduler_loop(settings.town_name, town.redis, [heartbeat, sweep], stop)


def run_clerk(
    settings: Settings, url: str, stop: threading.Event, fallback_roster: Roster | None = None
) -> None:
    """Read the inbox until `stop` is set (`fallback_roster`: see `Town.open`)."""
    Clerk(Town.open(settings, url, blocking=POLL_TIMEOUT, fallback_roster=fallback_roster)).serve(stop)


def run_worker(
    settings: Settings, url: str, name: str, queue: str, fallback_roster: Roster | None = None,
    stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Run the jobs of one queue until SIGTERM.

    `stop` is set when SIGTERM came before this was called; one that comes before rq listens ends it too.
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
    roster, keys = town.roster(), town.keys

    def worker(name: str, queue: str) -> ProcessSpec:
        return ProcessSpec(name, lambda stop: run_worker(settings, url, name, queue, roster, stop))

    numbers = range(1, settings.daemon.workers + 1)
    return [
        ProcessSpec("clerk", lambda stop: run_clerk(settings, url, stop, roster)),
        *(worker(f"lifecycle-{number}", keys.lifecycle_queue(town.host)) for number in numbers),
        worker("heartbeat", keys.heartbeat_queue(town.host)),
    ]


def scheduler_process(settings: Settings, url: str) -> ProcessSpec:
    """The process that enqueues the periodic jobs."""
    return ProcessSpec("scheduler", lambda stop: run_scheduler(settings, url, stop))


def serve(
    settings: Settings, url: str, children: Sequence[ProcessSpec], lock: TownLock | None,
    tick: Callable[[], None] = lambda: None, *, stopping: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Run the children until SIGTERM or SIGINT; keep the town's state while this process holds its lock.

    `tick` is called several times a second, `stopping` once when it begins to stop.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    town = Town.open(settings, url)
    leadership = Leadership(town, lock)
    supervisor = Supervisor(
        children, in_child=leadership.close_in_child, on_death=lambda _: request_sweep(town)
    )

    def each_tick() -> None:
        if leadership.try_take_over():
            request_sweep(town)
        leadership.report()
        _revive_redis(settings)
        tick()

    def on_stop() -> None:
        leadership.announce_stop()
        stopping()

    with leadership:
        request_sweep(town)
        supervisor.run(stop, each_tick, on_stop)


def _revive_redis(settings: Settings) -> None:
    """Start the embedded server again when it has died; one that only hangs is left alone."""
    try:
        if not settings.daemon.redis_url and not is_server_running(settings.redis_dir):
            ensure_server(settings.redis_dir)
            log_event(log, "redis_started_again", level=logging.WARNING)
    except GastownError as error:
        log_event(log, "redis_not_started", level=logging.ERROR, detail=str(error))


def request_sweep(town: Town) -> None:
    """Have the work of dead processes resumed now rather than at the next sweep."""
    try:
        town.queues.enqueue_sweep(town.host)
    except RedisError as error:
        log_event(log, "sweep_not_requested", level=logging.WARNING, detail=str(error))
