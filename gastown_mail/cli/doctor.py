"""`doctor`: what is wrong with this town, and the remedy for each finding."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rq.worker_registration import get_keys

from gastown_mail.cli.here import json_option, open_town, settings_of, show, town_option
from gastown_mail.contracts.errors import GastownError, Unknown
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.queues import queue
from gastown_mail.daemon.roster import load_roster
from gastown_mail.daemon.schedule import next_due
from gastown_mail.daemon.starting import preflight, search_path
from gastown_mail.daemon.town import Town
from gastown_mail.plumbing.connections import warnings_of
from gastown_mail.sessions.tmux import NoServer

FINDINGS = 6
OLDEST_TMUX = (3, 2)
LEAST_FREE = 100 * 1024 * 1024
MOST_SKEW = 2.0
"""Seconds by which Redis' clock may differ from ours: requests are judged by both."""

VERSION_DEADLINE = 5.0
Findings = Iterator[str]


@click.command()
@town_option
@json_option
def doctor(town: str | None, as_json: bool) -> int:
    """Check everything that the daemon stands on; exit 6 when there is a finding."""
    settings = settings_of(town)
    found = [{"check": name, "finding": finding} for name, finding in examine(settings, town)]
    if as_json:
        show({"town": settings.town_name, "findings": found})
    else:
        lines = [f"! {one['check']}: {one['finding']}" for one in found]
        click.echo("\n".join(lines or [f"{settings.town_name}: nothing is wrong"]))
    return FINDINGS if found else 0


def examine(settings: Settings, town: str | None) -> Iterator[tuple[str, str]]:
    """Every finding with the name of its check, each with what to do about it."""
    checks: dict[str, Callable[[], Findings]] = {
        "disk": lambda: _disk(settings),
        "agents": lambda: _agents(settings),
        "tmux": _binary,
    }
    for name, check in checks.items():
        yield from _run(name, check)
    try:
        with open_town(town) as opened:
            for name, of_town in _OF_A_TOWN.items():
                yield from _run(name, lambda of_town=of_town: of_town(opened))  # type: ignore[misc]
    except GastownError as error:
        yield "redis", str(error)


def _run(name: str, check: Callable[[], Findings]) -> Iterator[tuple[str, str]]:
    try:
        yield from ((name, finding) for finding in check())
    except Unknown as error:
        yield name, str(error)


def _disk(settings: Settings) -> Findings:
    folder = settings.daemon_dir if settings.daemon_dir.is_dir() else settings.town_root
    if not os.access(folder, os.W_OK):
        yield f"{folder} cannot be written to; give user {os.getuid()} the right to"
    if shutil.disk_usage(folder).free < LEAST_FREE:
        yield f"less than {LEAST_FREE // 2**20} MB are free at {folder}; make room for state.json"


def _agents(settings: Settings) -> Findings:
    roster = load_roster(settings)
    yield from roster.notes
    for agent in roster.agents.values():
        needed = agent.keep_running and agent.host == settings.host
        if needed and (fault := preflight(agent, settings.town_root, search_path())):
            yield f"{agent.address} cannot be started: {fault}"


def _binary() -> Findings:
    if shutil.which("tmux") is None:
        yield "tmux is not on the PATH; install it (apt install tmux, brew install tmux)"
    elif _version(_client_version())[:2] < OLDEST_TMUX:
        yield f"tmux {_client_version()} is too old; install 3.2 or newer"


def _client_version() -> str:
    said = subprocess.run(
        ["tmux", "-V"], capture_output=True, text=True, timeout=VERSION_DEADLINE, check=False
    )
    return said.stdout.strip().removeprefix("tmux ")


def _version(text: str) -> tuple[int, ...]:
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return tuple(map(int, digits)) or OLDEST_TMUX


def _server(town: Town) -> Findings:
    """The tmux server of the town, if one lives: does it understand us, and is it ours?"""
    socket = town.settings.tmux_socket
    if (
        socket.startswith("/")
        and Path(socket).exists()
        and (owner := Path(socket).stat().st_uid) != os.getuid()
    ):
        yield f"{socket} belongs to user {owner}, and this is user {os.getuid()}; run both as the same user"
    try:
        server = town.sessions.tmux.run("display-message", "-p", "#{version}").strip()
    except NoServer:
        return
    except Unknown as error:
        remedy = (
            "; end that server when its agents may end, or use the same tmux"
            if "protocol" in str(error)
            else ""
        )
        yield f"{error}{remedy}"
        return
    if server != (client := _client_version()):
        yield f"the server is tmux {server}, the client is tmux {client}; use the same version for both"


def _redis(town: Town) -> Findings:
    yield from warnings_of(town.redis)
    seconds, micros = town.redis.time()
    if abs(skew := seconds + micros / 1e6 - time.time()) > MOST_SKEW:
        yield f"its clock differs from ours by {skew:.1f} s; set both by the same time server"


def _processes(town: Town) -> Findings:
    if not load_state(town.settings.town_root).running:
        yield "the daemon does not run; gastown-mail up or start runs it"
        return
    for name in (town.keys.lifecycle_queue(town.host), town.keys.heartbeat_queue(town.host)):
        if not get_keys(queue=queue(name, town.redis)):
            yield f"no worker listens on {name}; gastown-mail restart, or start worker.py"
    if next_due(town.settings.town_name, town.redis, town.keys.job_id("heartbeat", town.host)) is None:
        yield "the heartbeat is not on the schedule; gastown-mail restart, or start scheduler.py"


_OF_A_TOWN: dict[str, Callable[[Town], Findings]] = {
    "redis": _redis,
    "tmux server": _server,
    "daemon": _processes,
}
