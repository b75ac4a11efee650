"""The checks of `doctor` that ask the town's Redis and its tmux server."""

import os
import stat
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from gastown_mail.cli.checks import Results, client_version, finding, ok, unchecked
from gastown_mail.cli.options import EMBEDDED_HINT
from gastown_mail.contracts.errors import RedisUnavailable, StateUnknown
from gastown_mail.contracts.go_formats import format_duration
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.schedule import next_due
from gastown_mail.daemon.service import periodic_jobs
from gastown_mail.plumbing.connections import durability_warnings, redact, redis_errors, to_str
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.sessions.tmux import NoServer
from gastown_mail.status.rq_workers import registered_workers
from gastown_mail.town.town import Town

MIN_REDIS = (6, 2)
"""The first with LMOVE and BLMOVE, with which nothing is lost between inbox and clerk."""

MAX_CLOCK_SKEW = 2.0
"""Seconds by which Redis' clock may differ from ours: requests are judged by both."""

SERVER_REMEDIES = {
    "protocol": "; end that server when its agents may end, or use the same tmux",
    "did not answer": "; if its process was stopped, kill -CONT lets it go on",
}
"""By a word of tmux' own, or of ours about it."""


def check_redis(town: Town) -> Results:
    """Does Redis answer, is it new enough, and does it keep what it accepts?"""
    try:
        with redis_errors(town.redis_url):
            town.redis.ping()
    except RedisUnavailable as error:
        yield finding(str(error) if town.settings.daemon.redis_url else f"{error}; {EMBEDDED_HINT}")
        return
    yield ok(f"{redact(town.redis_url)} answers")
    info = _info(town.redis)
    warnings = durability_warnings(town.redis)
    if info is None:
        yield unchecked(warnings[0])
        return
    version = to_str(info["redis_version"])
    if is_too_old(version):
        yield finding(f"its version is {version}: 6.2 or newer is needed; update it")
    yield from map(finding, warnings)
    if not warnings:
        yield ok(
            f"version {version}, append-only file on, eviction policy {to_str(info['maxmemory_policy'])}"
        )


def is_too_old(version: str) -> bool:
    """Does a Redis of this version lack what we use?"""
    return tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS


def _info(redis: Redis) -> Mapping[str, Any] | None:
    """What Redis tells of itself; None where this user may not ask."""
    try:
        info: Any = redis.info()
    except ResponseError:
        return None
    return dict(info)


def check_clock(town: Town) -> Results:
    """Do Redis' clock and ours agree? Raises RedisError."""
    seconds, micros = town.redis.time()
    skew = seconds + micros / 1e6 - time.time()
    if abs(skew) > MAX_CLOCK_SKEW:
        yield finding(f"Redis' clock differs from ours by {skew:.1f} s; set both by the same time server")
    else:
        yield ok(f"Redis' clock and ours agree, to {abs(skew):.1f} s")


def check_socket(town: Town) -> Results:
    """Are the tmux socket and its folder ours alone?"""
    path, uid = socket_path(town), os.getuid()
    for place in (path.parent, path):
        if not place.exists():
            yield ok(f"{place} is not there yet; the first start makes it")
            return
        if (owner := place.stat().st_uid) != uid and (place == path or not _is_absolute(town)):
            yield finding(
                f"{place} belongs to user {owner}, and this is user {uid}; run both as the same user"
            )
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    if mode & 0o077 and not _is_absolute(town):
        yield finding(f"{path.parent} is open to others (mode {mode:04o}); chmod 700 {path.parent}")
    yield ok(f"{path}, user {uid}")


def _is_absolute(town: Town) -> bool:
    """Does the settings' path name the folder? Then who may enter it is not tmux's choice."""
    return town.settings.tmux_socket.startswith("/")


def socket_path(town: Town) -> Path:
    """Where tmux has the town's socket."""
    folder = Path(town.sessions.tmux.environ.get("TMUX_TMPDIR") or "/tmp") / f"tmux-{os.getuid()}"
    return folder / town.settings.tmux_socket


def check_server(town: Town) -> Results:
    """The tmux server of the town, if one lives: does it answer, and does it understand us?"""
    try:
        version, pid = town.sessions.tmux.run("display-message", "-p", "#{version} #{pid}").split()
    except NoServer:
        yield ok("no server lives yet; the first start of a session makes one")
        return
    except StateUnknown as error:
        remedy = next((text for word, text in SERVER_REMEDIES.items() if word in str(error)), "")
        yield finding(f"{error}{remedy}")
        return
    if version != (client := client_version()):
        yield finding(
            f"the server is tmux {version}, the client is tmux {client}; use the same version for both"
        )
    sessions = town.sessions.snapshot().values()
    ours = sum(bool(session.incarnation) for session in sessions)
    yield ok(f"tmux {version} answers, pid {pid}: {len(sessions)} sessions, {ours} of them ours")


def check_daemon(town: Town) -> Results:
    """Does the daemon run, and do its workers and its schedule stand? Raises RedisError, StateFileError."""
    holder = TownLock.holder(town.settings.lock_file)
    running = load_state(town.settings.town_root).running
    if holder is None and not running:
        yield finding("the daemon does not run; gastown-mail up or start runs it")
        return
    if holder is None:
        yield finding(
            "no process holds the town's lock: the daemon was killed, or runs elsewhere; gastown-mail restart"
        )
    else:
        yield ok(f"pid {holder.pid or 'unknown'} holds the town")
    yield from _workers(town, near=holder is not None and holder.pid is not None)
    yield from _schedule(town)


def _workers(town: Town, *, near: bool) -> Results:
    hosts = {town.host, *(agent.host for agent in town.roster().agents.values())}
    queues = {
        name: host
        for host in sorted(hosts)
        for name in (town.keys.lifecycle_queue(host), town.keys.heartbeat_queue(host))
    }
    now = datetime.now(UTC)
    for (name, host), workers in zip(
        queues.items(), registered_workers(town.redis, list(queues)), strict=True
    ):
        count = sum(worker.is_alive(now, same_machine=near) for worker in workers)
        remedy = "gastown-mail restart, or start worker.py" if host == town.host else f"start one on {host}"
        yield (
            ok(f"workers alive on {name}: {count}")
            if count
            else finding(f"no living worker listens on {name}; {remedy}")
        )


def _schedule(town: Town) -> Results:
    for job in periodic_jobs(town):
        name, due = job.function.rpartition(".")[2], next_due(town.settings.town_name, town.redis, job.job_id)
        if due is None:
            yield finding(f"the {name} is not on the schedule; gastown-mail restart, or start scheduler.py")
        else:
            yield ok(f"the {name} is on the schedule, every {format_duration(job.seconds)}")
