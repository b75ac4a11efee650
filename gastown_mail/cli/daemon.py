"""`up`, `start`, `stop`, `restart`: run a town's daemon."""

import os
import signal
import subprocess
import sys
import tempfile

import click
from redis.exceptions import RedisError

from gastown_mail.cli.events import EventFollower, format_event
from gastown_mail.cli.options import load, town_option
from gastown_mail.cli.output import wait_for
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.redis_url import redact
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon import service
from gastown_mail.daemon.supervisor import KILL_GRACE, STOP_DEADLINE
from gastown_mail.plumbing import log
from gastown_mail.plumbing.environment import without_session
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town

_START_WAIT = 20.0
"""Seconds within which a daemon in the background must come up."""

_STOP_WAIT = STOP_DEADLINE + 2 * KILL_GRACE + 10.0
"""Seconds within which a daemon must end after it was asked to stop."""


_NO_AGENTS = """There is no agent yet. Declare one in town.toml, for example:

    [agents."helper"]
    command = "claude {prompt}"
    work_dir = "."
    keep_running = true

It is started as soon as the file is saved.
"""


@click.command()
@town_option
@click.option("-q", "--quiet", is_flag=True, help="Do not print events.")
def up(quiet: bool) -> None:
    """Run the daemon in the foreground until Ctrl-C. The agents' sessions keep running after it."""
    if "GASTOWN_INCARNATION" in os.environ:
        # With this session's variables in its environment, the daemon would end together with the session.
        os.execve(sys.executable, sys.orig_argv, without_session(os.environ))
    settings = load()
    if not load_roster(settings).agents:
        click.echo(_NO_AGENTS, err=True)
    service.require_tmux()
    with service.town_lock(settings) as lock:
        log.configure(log_file=settings.log_file, size=settings.daemon.log_size)
        _serve(settings, lock, quiet)


def _serve(settings: Settings, lock: TownLock, quiet: bool) -> None:
    def announce(text: str) -> None:
        if not quiet:
            click.echo(text)

    announce(f"town {settings.town_name}: waiting for its Redis")
    url = service.open_redis(settings, warn=lambda text: click.echo(f"warning: {text}", err=True))
    try:
        children = [*service.worker_processes(settings, url), service.scheduler_process(settings, url)]
        announce(
            f"town {settings.town_name}: redis {redact(url)}, tmux {settings.tmux_socket}; Ctrl-C stops it"
        )
        stopping = f"stopping: waiting at most {_STOP_WAIT:.0f} s for running jobs"
        show_events = (lambda: None) if quiet else _EventPrinter(settings, url)
        service.serve(settings, url, children, lock, show_events, stopping=lambda: announce(stopping))
        service.end_empty_tmux(settings)
    finally:
        service.stop_embedded(settings)
    announce("stopped; the agents' sessions keep running")


class _EventPrinter:
    """Prints the new events at each call; while Redis does not answer they wait for a later call."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.follower = EventFollower(Town.open(settings, url))

    def __call__(self) -> None:
        try:
            for event in self.follower.read():
                click.echo(format_event(event))
        except RedisError as error:
            click.echo(f"Redis does not answer: {error}", err=True)


@click.command()
@town_option
def start() -> None:
    """Run the daemon in the background."""
    settings = load()
    pid = start_in_background(settings)
    click.echo(f"the daemon of {settings.town_name} is running, pid {pid}; gastown-mail status shows it")


def start_in_background(settings: Settings) -> int:
    """Start `up` detached, wait until it serves and return its pid. Raises GastownError if it does not."""
    agents = load_roster(settings).agents
    if not agents:
        click.echo(_NO_AGENTS, err=True)
    starter = agents.get(os.environ.get("GASTOWN_AGENT", ""))
    environ = without_session(os.environ, own=starter.env if starter else ())
    service.require_tmux()
    service.lock_town(settings).release()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            # -P: nothing is imported from the town's folder
            [sys.executable, "-P", "-m", "gastown_mail", "--town", str(settings.town_root), "up", "--quiet"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            start_new_session=True, cwd=settings.town_root, env=environ,
        )  # fmt: skip
        if _wait_until_up(process, settings):
            return process.pid
        errors.seek(0)
        reason = errors.read().decode(errors="replace").strip() or f"see {settings.log_file}"
    kind = SettingsError if process.poll() == SettingsError.exit_code else GastownError
    raise kind(f"the daemon did not come up: {reason}")


def _wait_until_up(process: "subprocess.Popen[bytes]", settings: Settings) -> bool:
    """Wait until the daemon serves; False, after asking it to end, if it does not in time."""

    def serves() -> bool:
        state = load_state(settings.town_root)
        return process.poll() is None and state.running and state.pid == process.pid

    wait_for(
        lambda: process.poll() is not None or (serves() and not _missing_parts(settings)),
        "the daemon, its workers and its schedule", _START_WAIT,
    )  # fmt: skip
    if serves():
        for problem in _missing_parts(settings):
            click.echo(f"warning: {problem}", err=True)
        return True
    if process.poll() is None:
        process.terminate()
    return False


def _missing_parts(settings: Settings) -> list[str]:
    """The parts of the daemon that do not run yet."""
    # `up` does not need these imports
    from gastown_mail.status.collect import StatusCollector
    from gastown_mail.status.health import missing_workers

    problems = missing_workers(StatusCollector(settings).report())
    return [f"{problem.reason}: {problem.remedy}" for problem in problems]


@click.command()
@town_option
def stop() -> None:
    """Stop the daemon. The agents' sessions keep running."""
    click.echo("stopped" if stop_daemon(load()) else "no daemon is running")


def stop_daemon(settings: Settings) -> bool:
    """Stop the daemon that holds the town and wait until it has ended; False when there is none.

    Only the process that holds the lock is signalled, whatever pid a file names.
    """
    holder = TownLock.holder(settings.lock_file)
    if holder is None:
        return False
    if holder.pid is None:
        raise GastownError(
            f"a daemon holds {settings.lock_file}, but its pid is not visible here (another machine, "
            "container or user); stop it where it was started"
        )
    os.kill(holder.pid, signal.SIGTERM)
    awaited = f"the daemon, pid {holder.pid}, to end"
    if not wait_for(lambda: TownLock.holder(settings.lock_file) is None, awaited, _STOP_WAIT):
        raise GastownError(
            f"the daemon, pid {holder.pid}, is still running after {_STOP_WAIT:.0f} s; see gastown-mail logs"
        )
    return True


@click.command()
@town_option
def restart() -> None:
    """Stop the daemon and run it again in the background. The agents' sessions keep running."""
    settings = load()
    stop_daemon(settings)
    pid = start_in_background(settings)
    click.echo(f"the daemon of {settings.town_name} is running, pid {pid}; gastown-mail status shows it")
