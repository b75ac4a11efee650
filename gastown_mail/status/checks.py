"""The checks of `doctor`: the problems of the town's report, and what only a closer look shows."""

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError, ResponseError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable
from gastown_mail.contracts.go_formats import format_duration
from gastown_mail.contracts.private import private_dir
from gastown_mail.contracts.redis_url import redact
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.schedule import next_due
from gastown_mail.daemon.service import periodic_jobs
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import durability_warnings, redis_errors, to_str
from gastown_mail.sessions.tmux import NoServer
from gastown_mail.status.agent_checks import check_agents, check_programs
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.health import all_problems, missing_workers
from gastown_mail.status.host_checks import check_hosts
from gastown_mail.status.model import CheckResult, Report, finding, ok, unchecked
from gastown_mail.status.systemd import check_stopping

_MIN_FREE_DISK = 100 * 1024 * 1024
_MIN_TMUX = (3, 2)
_VERSION_DEADLINE = 5.0

_MIN_REDIS = (6, 2)
"""The first version with LMOVE and BLMOVE, which lose nothing between the inbox and the clerk."""

_MAX_CLOCK_SKEW = 2.0
"""Seconds by which the clocks of Redis and of this machine may differ: both judge the age of requests."""

_Results = Iterator[CheckResult]
_Check = Callable[[StatusCollector, Report], _Results]
_checks: dict[str, _Check] = {}


def run_checks(settings: Settings) -> list[CheckResult]:
    """The results of all checks; each check has at least one."""
    collector = StatusCollector(settings)
    with collector.town.redis:
        report = collector.report()
        return [result for name in _checks for result in _run(name, collector, report)]


def _run(name: str, collector: StatusCollector, report: Report) -> _Results:
    problems = [problem for check, problem in all_problems(report) if check == name]
    results = [finding(f"{problem.reason}: {problem.remedy}") for problem in problems]
    try:
        with redis_errors(collector.town.redis_url):
            results.extend(_checks[name](collector, report))
    except RedisUnavailable:
        results.append(unchecked("Redis does not answer"))
    except (GastownError, RedisError, OSError, subprocess.TimeoutExpired) as error:
        results.append(finding(str(error)))
    return (result.model_copy(update={"check": name}) for result in results)


def _check(name: str) -> Callable[[_Check], _Check]:
    """Register a check under its name. It adds to the problems of the report, and does not repeat them."""

    def register(check: _Check) -> _Check:
        _checks[name] = check
        return check

    return register


@_check("folder")
def _check_folder(collector: StatusCollector, report: Report) -> _Results:
    """Can the state and the log be written, and is there space?"""
    settings = collector.settings
    folder = settings.daemon_dir if settings.daemon_dir.is_dir() else settings.town_root
    if not os.access(folder, os.W_OK | os.X_OK):
        yield finding(f"{folder} is not writable; give user {os.getuid()} write access")
    private = private_dir(settings.daemon_dir)
    if private.is_dir() and private.stat().st_mode & 0o077:
        yield finding(f"{private} is open to others; put the town on a file system that keeps modes")
    free = shutil.disk_usage(folder).free
    if free < _MIN_FREE_DISK:
        least = _MIN_FREE_DISK // 2**20
        yield finding(f"less than {least} MB are free at {folder}; free space for state.json and the log")
    else:
        yield ok(f"{folder}: {free // 2**20} MB are free")
    if "state" not in report.unknown:
        load_state(settings.town_root)


@_check("agents")
def _check_agents(collector: StatusCollector, report: Report) -> _Results:
    """Can every agent of this host be started?"""
    if "roster" in report.unknown:
        return
    yield from check_agents(collector, report)


@_check("programs")
def _check_programs(collector: StatusCollector, report: Report) -> _Results:
    """Can the agents' programs work unattended, and ask for a cycle?"""
    if "roster" in report.unknown:
        yield unchecked("the agents are not known")
        return
    yield from check_programs(collector)


@_check("tmux")
def _check_tmux(_: StatusCollector, __: Report) -> _Results:
    """Is tmux installed, and new enough?"""
    path = shutil.which("tmux")
    if path is None:
        yield finding("tmux is not on the PATH; install it (apt install tmux, brew install tmux)")
        return
    version = _client_version()
    if _numbers(version) < _MIN_TMUX:
        yield finding(f"{path} is tmux {version}; install 3.2 or newer")
    else:
        yield ok(f"{path}, version {version}")


def _client_version() -> str:
    done = subprocess.run(
        ["tmux", "-V"], capture_output=True, text=True, timeout=_VERSION_DEADLINE, check=False
    )
    return done.stdout.strip().removeprefix("tmux ")


@_check("redis")
def _check_redis(collector: StatusCollector, report: Report) -> _Results:
    """Is Redis new enough, and does it keep what it accepts?"""
    if "redis" in report.unknown:
        return
    town = collector.town
    yield ok(f"{redact(town.redis_url)} answers")
    warnings = durability_warnings(town.redis)
    try:
        info: Mapping[str, Any] = town.redis.info()
    except ResponseError:  # this user has no right to ask
        yield unchecked(warnings[0])
        return
    version = to_str(info["redis_version"])
    if _numbers(version) < _MIN_REDIS:
        yield finding(f"its version is {version}: 6.2 or newer is needed; update it")
    yield from map(finding, warnings)
    if not warnings:
        policy = to_str(info["maxmemory_policy"])
        yield ok(f"version {version}, append-only file on, eviction policy {policy}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; one without numbers ("master") is newer than all others."""
    return tuple(map(int, re.findall(r"\d+", version)[:2])) or (sys.maxsize,)


@_check("clock")
def _check_clock(collector: StatusCollector, report: Report) -> _Results:
    """Do the clocks of Redis and of this machine agree?"""
    if "redis" in report.unknown:
        yield unchecked("Redis does not answer")
        return
    skew = redis_time(collector.town.redis) - time.time()
    if abs(skew) > _MAX_CLOCK_SKEW:
        yield finding(
            f"Redis's clock differs from this one by {skew:.1f} s; use the same time server for both"
        )
    else:
        yield ok(f"Redis's clock and this one agree to {abs(skew):.1f} s")


@_check("hosts")
def _check_hosts(collector: StatusCollector, report: Report) -> _Results:
    """Do the living hosts agree on town.toml and on the time?"""
    if {"redis", "roster"} & set(report.unknown):
        yield unchecked("Redis does not answer, or the agents are not known")
        return
    yield from check_hosts(collector)


@_check("tmux socket")
def _check_socket(collector: StatusCollector, _: Report) -> _Results:
    """Do the tmux socket and its folder belong to this user alone?"""
    tmux, uid = collector.town.sessions.tmux, os.getuid()
    # An absolute path in the settings is the user's choice, and so is access to its folder.
    is_absolute = collector.settings.tmux_socket.startswith("/")
    parent = tmux.environ.get("TMUX_TMPDIR") or "/tmp"
    path = Path(parent) / f"tmux-{uid}" / tmux.socket
    for file in (path.parent, path):
        if not file.exists():
            yield ok(f"{file} does not exist yet; the first start creates it")
            return
        owner = file.stat().st_uid
        if owner != uid and (file == path or not is_absolute):
            yield finding(
                f"{file} belongs to user {owner}, and this is user {uid}; run both as the same user"
            )
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    if mode & 0o077 and not is_absolute:
        yield finding(f"{path.parent} is open to others (mode {mode:04o}); chmod 700 {path.parent}")
    yield ok(f"{path}, user {uid}")


@_check("tmux server")
def _check_server(collector: StatusCollector, report: Report) -> _Results:
    """Is the town's tmux server, if it runs, of the same version as the client?"""
    if "tmux" in report.unknown:
        return
    sessions = collector.town.sessions
    try:
        version, pid = sessions.tmux.run("display-message", "-p", "#{version} #{pid}").split()
    except NoServer:
        yield ok("no server runs yet; the first session starts one")
        return
    if version != (client := _client_version()):
        yield finding(
            f"the server is tmux {version}, the client is tmux {client}; use the same version for both"
        )
    living = sessions.snapshot().values()
    managed = sum(bool(session.incarnation) for session in living)
    yield ok(f"tmux {version} answers, pid {pid}: {len(living)} sessions, {managed} of them managed")


@_check("daemon")
def _check_daemon(collector: StatusCollector, report: Report) -> _Results:
    """Which process holds the town, how many workers are alive, and what is on the schedule."""
    if report.daemon.held:
        yield ok(f"pid {report.daemon.pid or 'unknown'} holds the town")
    if report.verdict == "stopped" or missing_workers(report):
        return
    if {"redis", "workers", "schedule"} & set(report.unknown):
        yield unchecked("the workers and the schedule are in Redis")
        return
    for host in report.hosts or ():
        yield ok(f"workers alive on {host.host}: {host.lifecycle} lifecycle, {host.heartbeat} heartbeat")
    for job in periodic_jobs(collector.town):
        name = job.function.rpartition(".")[2]
        if next_due(collector.settings.town_name, collector.town.redis, job.job_id):
            yield ok(f"the {name} is on the schedule, every {format_duration(job.seconds)}")
        else:
            yield finding(f"the {name} is not on the schedule; gastown-mail restart, or start scheduler.py")


@_check("stopping")
def _check_stopping(collector: StatusCollector, _: Report) -> _Results:
    """Would a stop of the daemon leave the agents alone and finish in time?"""
    return check_stopping(collector)
