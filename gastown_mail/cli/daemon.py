"""`init`, `up`, `start`, `stop`, `restart`: making a town, and the daemon that serves it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
from redis.exceptions import RedisError

from gastown_mail.cli.facts import EventFollower, format_event
from gastown_mail.cli.options import load, town_option
from gastown_mail.cli.output import wait_for
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon import service
from gastown_mail.daemon.supervisor import KILL_GRACE, STOP_DEADLINE
from gastown_mail.plumbing import log
from gastown_mail.plumbing.connections import redact
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town

START_WAIT = 20.0
"""Seconds in which a daemon in the background must be up."""

STOP_WAIT = STOP_DEADLINE + 2 * KILL_GRACE + 10.0
"""Seconds in which a daemon that was asked to stop must be gone."""

SESSION_VARIABLES = frozenset(
    (
        "GASTOWN_AGENT",
        "GASTOWN_HANDOFF",
        "GASTOWN_INCARNATION",
        "GASTOWN_REDIS_URL",
        "GASTOWN_TOWN_NAME",
        "GT_ROLE",
    )
)
TEMPLATE = Path(__file__).with_name("town.toml")


@click.command()
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(directory: Path) -> None:
    """Make a town: a commented town.toml and the folders. What is there already stays as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "town.toml"
    if not file.exists():
        file.write_text(TEMPLATE.read_text())
    settings = load_settings(directory, environ=os.environ)
    settings.daemon_dir.mkdir(mode=0o755, exist_ok=True)
    for folder in ("mayor", "deacon"):
        (directory / folder).mkdir(exist_ok=True)
    click.echo(
        f"town {settings.town_name} is in {settings.town_root}; next: edit town.toml, then gastown-mail up"
    )


@click.command()
@town_option
@click.option("-q", "--quiet", is_flag=True, help="Do not show what happens.")
def up(town: str | None, quiet: bool) -> None:
    """Run the whole daemon in the foreground, until Ctrl-C; the agents' sessions go on after that."""
    _leave_session(os.environ)
    settings = load(town)
    load_roster(settings)
    service.require_tmux()
    with TownLock(settings.lock_file) as lock:
        log.configure(log_file=settings.log_file, size=settings.daemon.log_size)
        _serve(settings, lock, quiet)


def _leave_session(environ: Mapping[str, str]) -> None:
    """Begin anew without the identity of the session this was called in: it would end with that session."""
    if "GASTOWN_INCARNATION" in environ:
        os.execve(sys.executable, sys.orig_argv, without_identity(environ))


def without_identity(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what a session has put there (CONTRACTS section 7); any other as it is."""
    foreign = SESSION_VARIABLES if "GASTOWN_INCARNATION" in environ else frozenset()
    return {name: value for name, value in environ.items() if name not in foreign}


def _serve(settings: Settings, lock: TownLock, quiet: bool) -> None:
    tell = _silent if quiet else click.echo
    tell(f"town {settings.town_name}: waiting for its Redis")
    url = service.open_redis(settings, warn=lambda text: click.echo(f"warning: {text}", err=True))
    children = [*service.worker_processes(settings, url), service.scheduler_process(settings, url)]
    tell(f"town {settings.town_name}: redis {redact(url)}, tmux {settings.tmux_socket}; Ctrl-C stops")
    stopping = f"stopping: waiting at most {STOP_WAIT:.0f} s for what is being done"
    try:
        service.serve(settings, url, children, lock, (lambda: None) if quiet else EventPrinter(settings, url),
                      stopping=lambda: tell(stopping))  # fmt: skip
    finally:
        service.stop_embedded(settings)
    tell("stopped; the agents' sessions go on")


def _silent(_: str) -> None:
    """Say nothing."""


class EventPrinter:
    """Prints the facts that came since the last call; what Redis does not tell now comes later."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.follower = EventFollower(Town.open(settings, url))

    def __call__(self) -> None:
        try:
            for event in self.follower.new():
                click.echo(format_event(event))
        except RedisError as error:
            click.echo(f"redis does not answer: {error}", err=True)


@click.command()
@town_option
def start(town: str | None) -> None:
    """Run the daemon in the background."""
    settings = load(town)
    pid = start_in_background(settings)
    click.echo(f"daemon of {settings.town_name} runs, pid {pid}; gastown-mail status shows it")


def start_in_background(settings: Settings) -> int:
    """Start `up` detached and wait until it serves; returns its pid. Raises what kept it from that."""
    load_roster(settings)
    service.require_tmux()
    service.lock_town(settings).release()
    settings.daemon_dir.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "gastown_mail", "--town", str(settings.town_root), "up", "--quiet"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words,
            start_new_session=True, cwd=settings.town_root, env=without_identity(os.environ),
        )  # fmt: skip
        if _wait_until_up(process, settings):
            return process.pid
        words.seek(0)
        said = words.read().decode(errors="replace").strip() or f"see {settings.log_file}"
    raise GastownError(f"the daemon did not come up: {said}")


def _wait_until_up(process: "subprocess.Popen[bytes]", settings: Settings) -> bool:
    """Does the daemon serve within its time? One that does not is asked to end."""
    wait_for(
        lambda: process.poll() is not None or (_serves(process, settings) and not _missing_parts(settings)),
        "the daemon, its workers and its schedule", START_WAIT,
    )  # fmt: skip
    if _serves(process, settings):
        for trouble in _missing_parts(settings):
            click.echo(f"warning: {trouble}", err=True)
        return True
    if process.poll() is None:
        process.terminate()
    return False


def _serves(process: "subprocess.Popen[bytes]", settings: Settings) -> bool:
    state = load_state(settings.town_root)
    return process.poll() is None and state.running and state.pid == process.pid


def _missing_parts(settings: Settings) -> list[str]:
    """What nobody does yet of a daemon's work; imported here, for `up` itself has no use for it."""
    from gastown_mail.cli.look import StatusCollector
    from gastown_mail.cli.troubles import missing_workers

    return [
        f"{trouble.reason}: {trouble.remedy}"
        for trouble in missing_workers(StatusCollector(settings).report())
    ]


@click.command()
@town_option
def stop(town: str | None) -> None:
    """Stop the daemon; the agents' sessions go on."""
    settings = load(town)
    click.echo("stopped" if stop_daemon(settings) else "no daemon runs")


def stop_daemon(settings: Settings) -> bool:
    """End the daemon that holds the town and wait until it has gone; False when there is none.

    A pid that only a file names is never signalled: it must be seen to hold the lock.
    """
    holder = TownLock.holder(settings.lock_file)
    if holder is None:
        return False
    if holder.pid is None:
        raise GastownError(
            f"a daemon holds {settings.lock_file}, but its pid is not seen from here; stop it where it runs"
        )
    os.kill(holder.pid, signal.SIGTERM)
    awaited = f"the daemon, pid {holder.pid}, to end what it does"
    if not wait_for(lambda: TownLock.holder(settings.lock_file) is None, awaited, STOP_WAIT):
        raise GastownError(f"the daemon, pid {holder.pid}, is not gone after {STOP_WAIT:.0f} s; see its log")
    return True


@click.command()
@town_option
def restart(town: str | None) -> None:
    """Stop the daemon and run it in the background again; the agents' sessions go on."""
    settings = load(town)
    stop_daemon(settings)
    click.echo(f"daemon of {settings.town_name} runs, pid {start_in_background(settings)}")
