"""What a session is created from: checked, and made into the one command that creates it."""

import os
from collections.abc import Iterable, Mapping

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import StartFailed
from gastown_mail.sessions import commands


def new_session_command(
    agent: Agent,
    *,
    incarnation: str,
    generation: int,
    started: float,
    command: str,
    environ: Mapping[str, str],
    base: Mapping[str, str],
    server_names: Iterable[str],
) -> str:
    """Return the command line that creates the agent's session, whoever sends it and however often.

    The session's environment is `environ` over `base`; of the server's own (`server_names`) nothing is left.
    """
    # TERM is the pane's own, from tmux; what the worker's terminal is does not matter.
    variables = {key: value for key, value in base.items() if key != "TERM"} | dict(environ)
    return commands.create(
        agent.session,
        generation=generation,
        environ=variables,
        removed=[name for name in server_names if name not in variables],
        options=ownership_options(agent, incarnation=incarnation, generation=generation, started=started),
        work_dir=os.fspath(agent.work_dir),
        command=command,
    )


def ownership_options(agent: Agent, *, incarnation: str, generation: int, started: float) -> dict[str, str]:
    """Return the options, without their prefix, by which a session is known as ours."""
    return {
        "incarnation": incarnation,
        "generation": str(generation),
        "agent": agent.address,
        "started": f"{started:.6f}",
    }


def validate_start(agent: Agent, incarnation: str, environ: Mapping[str, str], command: str) -> None:
    """Raise StartFailed for what tmux or the kernel could not take exactly."""
    texts = [command, os.fspath(agent.work_dir), *environ, *environ.values()]
    name = f"{agent.session!r} is no session name of letters, digits, - and _"
    checks = {
        name: commands.NAME.fullmatch(agent.session),
        f"{incarnation!r} is no incarnation token": commands.TOKEN.fullmatch(incarnation),
        f"the work dir {agent.work_dir} is not absolute": agent.work_dir.is_absolute(),
        "a variable's name is empty or holds =": all(name and "=" not in name for name in environ),
        "a NUL is in the command, the work dir, or the environment": not any("\0" in text for text in texts),
    }
    for problem, fine in checks.items():
        if not fine:
            raise StartFailed(f"{agent.address} cannot be started: {problem}; correct it in town.toml")
