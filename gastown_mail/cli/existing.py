"""`import`: make a town of sessions that run already, and take them over."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from gastown_mail.cli.options import open_town, town_option
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.lifecycle.start import adopt_session
from gastown_mail.programs.library import OTHER, built_in, choose_program
from gastown_mail.sessions.existing import ExistingSession, existing_sessions, running_sockets
from gastown_mail.sessions.tmux import default_socket

_HEAD = """\
# Made by gastown-mail import from the sessions that were running. Check each command: it starts the next
# session of that agent. {{prompt}} in it becomes the first prompt, which names the agent and its handoff.

[daemon]
tmux_socket = {socket}
"""


@click.command(name="import")
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@town_option
@click.option(
    "--socket", metavar="S", help="The tmux server to look at: a name (tmux -L) or a path (tmux -S)."
)
@click.option(
    "--adopt", is_flag=True, help="Take over the sessions of this town's agents; its daemon must run."
)
def import_(directory: Path | None, socket: str | None, adopt: bool) -> int:
    """Propose a town.toml for the tmux sessions you already have; with DIRECTORY, write it there.

    A town.toml that exists is never changed, and no session is touched without --adopt.
    """
    if adopt:
        if directory or socket:
            raise click.UsageError("use --adopt alone, in the town (or with --town) whose daemon runs")
        return _adopt_all()
    server, sessions = _choose_server(socket)
    proposal = "\n".join(_proposal(server, sessions))
    if directory is None:
        click.echo(proposal)
        click.echo("nothing was written; gastown-mail import DIRECTORY writes this as a new town", err=True)
        return 0
    file = directory / "town.toml"
    if file.exists():
        click.echo(proposal)
        raise SettingsError(f"{file} exists and was not changed; copy what you want of the above into it")
    directory.mkdir(parents=True, exist_ok=True)
    # the words of a running program may hold a key
    write_atomically(file, f"{proposal}\n".encode(), 0o600)
    click.echo(
        f"{file} has {sum(one.can_be_agent for one in sessions)} agents; next: check it, then\n"
        f"  cd {shlex.quote(str(directory))} && gastown-mail start && gastown-mail import --adopt"
    )
    return 0


def _choose_server(socket: str | None) -> tuple[str, list[ExistingSession]]:
    """The server to look at and its sessions. Raises SettingsError if there is none, or more than one."""
    if socket:
        given = [socket if "/" in socket else default_socket(socket, os.environ)]
    else:
        given = running_sockets(os.environ)
    found = {path: sessions for path in given if (sessions := existing_sessions(path))}
    if not socket:
        found = {path: some for path, some in found.items() if not all(one.managed for one in some)}
    if not found:
        where = f"at {given[0]}" if socket else "that no town has"
        raise SettingsError(f"there is no tmux session {where}; gastown-mail init makes a town without")
    if len(found) > 1:
        listed = ", ".join(f"{path} ({len(some)})" for path, some in found.items())
        raise SettingsError(f"a town has one tmux server: choose one with --socket: {listed}")
    return next(iter(found.items()))


def _proposal(server: str, sessions: Sequence[ExistingSession]) -> Iterator[str]:
    yield _HEAD.format(socket=json.dumps(server, ensure_ascii=False))
    for one in sessions:
        if not one.can_be_agent:
            yield f"# left out: session {one.name!r}, {_why_not(one)}\n"
            continue
        command = _as_started(one.program)
        keys: Mapping[str, object] = {
            "session": one.name, "command": command, "work_dir": one.work_dir, "keep_running": False,
        }  # fmt: skip
        yield f"[agents.{json.dumps(one.name, ensure_ascii=False)}]"
        program = choose_program(command, built_in())
        if program != OTHER and (example := built_in()[program].example):
            yield f"# with a first prompt, for example: {example}"
        yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())
        yield ""


def _as_started(words: Sequence[str]) -> str:
    """The command line as it was typed: that of a script without the interpreter before it."""
    is_script = len(words) > 1 and words[1].startswith("/") and os.access(words[1], os.X_OK)
    return shlex.join(words[1:] if is_script else words)


def _why_not(one: ExistingSession) -> str:
    if one.managed:
        return "a town has it already"
    if not one.program:
        return "which shows a shell"
    return "whose name has other characters than letters, digits, - and _ (tmux rename-session)"


def _adopt_all() -> int:
    """Take over every session of an agent that is not managed yet; return the exit code."""
    failed = False
    with open_town() as town:
        here = [agent for agent in town.roster().agents.values() if agent.host == town.host]
        live = town.sessions.snapshot()
        unmanaged = [
            agent for agent in here if (one := live.of(agent, town.sessions.town)) and not one.incarnation
        ]
        for agent in unmanaged:
            try:
                click.echo(f"{agent.address}: adopted session {adopt_session(town, agent).name}")
            except GastownError as error:
                failed = True
                click.echo(f"{agent.address}: {error}", err=True)
    if not unmanaged:
        click.echo("no agent of this town has a session that is not managed; gastown-mail agents shows them")
    return int(failed)
