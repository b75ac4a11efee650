"""What is in the way of an agent's session, as far as its settings and its program's profile tell."""

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from gastown_mail.contracts.address import Agent
from gastown_mail.plumbing.environment import (
    clean_environment,
    own_command,
    passed_environment,
    with_folder_of,
)
from gastown_mail.programs.first_contact import root_refusal
from gastown_mail.sessions.commands import generation_option
from gastown_mail.town.records import AgentRecord
from gastown_mail.town.town import Town

_SHELL_WORDS = frozenset(
    (
        ". : [ [[ { ! alias builtin case cd command eval exec exit export for if local printf read readonly"
        " set shift source test trap type ulimit umask unset until wait while"
    ).split()
)
"""What only a shell can run: only the start shows whether it works."""


def start_obstacle(town: Town, agent: Agent, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why the agent's session cannot be started here; None when no obstacle is known.

    `environ` is the daemon's environment.
    """
    fault = preflight(agent, town.settings.town_root, search_path(agent, environ))
    if fault or os.geteuid():
        return fault
    given = passed_environment(environ, agent.env_pass, town.redis_url) | dict(agent.env)
    profile = town.profile_of(agent)
    option = root_refusal(agent.command, profile, given)
    if not option:
        return None
    sets = " or ".join(f'{name} = "{value}"' for name, value in profile.root.allows.items())
    inside = f", or in a sandbox set {sets} in env for {agent.address}" if sets else ""
    name = profile.label or agent.program
    return f"{name} ends at once when root gives it {option}; run the daemon as another user{inside}"


def generation_obstacle(town: Town, agent: Agent, record: AgentRecord) -> str | None:
    """Why tmux would refuse the agent's next start as an old one; None if it would not."""
    last, ahead = town.sessions.last_generation(agent), record.generation_after(town.now().timestamp())
    if last is not None and last < ahead:
        return None
    option, socket = generation_option(agent.session), town.settings.tmux_socket
    return (
        f"tmux has a last generation of {agent.session} that no start can exceed; "
        f"tmux {'-S' if '/' in socket else '-L'} {shlex.quote(socket)} set-option -su {option} removes it"
    )


def preflight(agent: Agent, town_root: Path, path: str) -> str | None:
    """What is wrong with the agent's work dir or command, which is searched on `path`; None if nothing."""
    remedy = f"create it, or set work_dir for {agent.address}"
    try:
        if not agent.work_dir.is_dir():
            return f"the work dir {agent.work_dir} does not exist; {remedy}"
    except OSError as error:
        return f"the work dir {agent.work_dir} cannot be used ({error.strerror}); {remedy}"
    program = _program(agent.command_line("", town_root))
    place = str(agent.work_dir / program) if program and "/" in program else program
    if place and not shutil.which(place, path=path):
        return f"the command {program!r} is not on the PATH; install it, or set command for {agent.address}"
    return None


def _program(command: str) -> str | None:
    """The program that a command line runs first; None when only a shell can tell."""
    try:
        words = [word for word in shlex.split(command) if "=" not in word]
    except ValueError:
        return None
    first = words[0] if words else ""
    return None if not first or first in _SHELL_WORDS or set(first) & set("$`();&|<>*?~#") else first


def search_path(agent: Agent, environ: Mapping[str, str] = os.environ) -> str:
    """The PATH of the agent's session, with our command's folder; `environ` is the daemon's environment."""
    return with_folder_of(own_command(environ), agent.env.get("PATH", clean_environment(environ)["PATH"]))
