"""Starting an agent's session: is it startable, what does it get to know, and the start itself."""

import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import StartFailed
from gastown_mail.daemon.gate import started
from gastown_mail.daemon.town import Town
from gastown_mail.mail.events import tell
from gastown_mail.plumbing.failpoints import passing
from gastown_mail.sessions.session import Session

PAUSES_BETWEEN_STARTS = (0.2, 1.0)
"""Seconds before the second and the third try; then the start has failed."""

SHELL_WORDS = frozenset(
    (
        ". : [ [[ { ! alias builtin case cd command eval exec exit export for if local printf read readonly"
        " set shift source test trap type ulimit umask unset until wait while"
    ).split()
)
"""What only a shell can run: whether it can is then seen at the start."""


def preflight(agent: Agent, town_root: Path, search_path: str) -> str | None:
    """Why the agent's session cannot be started, None when nothing speaks against it."""
    if not agent.work_dir.is_dir():
        return f"the work dir {agent.work_dir} does not exist; make it, or set work_dir for {agent.address}"
    program = _program(agent.command_line("", town_root))
    path = agent.env.get("PATH", search_path)
    if program and not shutil.which(_from(agent.work_dir, program), path=path):
        return f"the command {program!r} is not on the PATH; install it, or set command for {agent.address}"
    return None


def _program(command: str) -> str | None:
    """The program a command line runs first, None when only a shell can tell."""
    try:
        words = [word for word in shlex.split(command) if "=" not in word]
    except ValueError:
        return None
    first = words[0] if words else ""
    return None if not first or first in SHELL_WORDS or set(first) & set("$`();&|<>*?~#") else first


def _from(work_dir: Path, program: str) -> str:
    return str(work_dir / program) if "/" in program else program


def new_incarnation() -> str:
    """A fresh token of a session: 128 random bits, so that it can be neither met twice nor guessed."""
    return secrets.token_hex(16)


def first_prompt(agent: Agent, town_name: str, why: str, handoff: Path | None) -> str:
    """What a new session is told: who it is, why it was started, where its handoff lies."""
    words = [
        f"You are {agent.address}, {agent.role} in the town {town_name}.",
        f"You were started because {why}.",
    ]
    if handoff:
        words.append(f"Your predecessor left you a handoff: read {handoff} first.")
    return " ".join(words)


def surroundings(town: Town, agent: Agent, incarnation: str, handoff: Path | None) -> dict[str, str]:
    """What a session finds in its environment (CONTRACTS section 7)."""
    given = {
        "GASTOWN_TOWN": str(town.settings.town_root),
        "GASTOWN_TOWN_NAME": town.settings.town_name,
        "GASTOWN_REDIS_URL": town.redis_url,
        "GASTOWN_AGENT": agent.address,
        "GASTOWN_INCARNATION": incarnation,
        "GT_ROLE": agent.role,
    }
    return {**agent.env, **given} | ({"GASTOWN_HANDOFF": str(handoff)} if handoff else {})


def start(
    town: Town, agent: Agent, *, why: str, handoff: Path | None,
    announce: Callable[[str], None] = lambda _: None, automatic: bool = False,
) -> Session:  # fmt: skip
    """Start the agent's session and write it down. `announce` is told each new incarnation before it exists.

    A program that ends at once is tried again; raises StartFailed when all tries are used, and Unknown.
    An automatic start counts in the agent's history, and so does any that fails.
    """
    for pause in (*PAUSES_BETWEEN_STARTS, None):
        try:
            session = _start_once(town, agent, why, handoff, announce)
            if automatic:
                _count(town, agent, failed=False)
            return session
        except StartFailed as error:
            tell(town.redis, town.keys, "start_failed", agent=agent.address, detail=str(error))
            if pause is None:
                _count(town, agent, failed=True)
                raise
        time.sleep(pause)
        _clear_away(town, agent)
    raise AssertionError("the loop returns or raises")


def _start_once(
    town: Town, agent: Agent, why: str, handoff: Path | None, announce: Callable[[str], None]
) -> Session:
    incarnation = new_incarnation()
    generation = town.agents.next_generation(agent.address)
    announce(incarnation)
    passing("successor-announced")
    prompt = first_prompt(agent, town.settings.town_name, why, handoff)
    session = town.sessions.start(
        agent, incarnation=incarnation, generation=generation,
        environ=surroundings(town, agent, incarnation, handoff),
        command=agent.command_line(prompt, town.settings.town_root),
    )  # fmt: skip
    passing("session-started")
    write_down(town, agent, session)
    passing("start-noted")
    return session


def _count(town: Town, agent: Agent, *, failed: bool) -> None:
    """Enter a start into the agent's history (see `gate`)."""
    now, settings = time.time(), town.settings.daemon
    gate = started(town.agents.read(agent.address).gate, now, settings, failed=failed)
    town.agents.write_gate(agent.address, gate)
    if gate.failures > 1 or failed:
        tell(town.redis, town.keys, "back_off", agent=agent.address, detail=gate.refusal(now) or "")


def write_down(town: Town, agent: Agent, session: Session) -> None:
    """Record the session that lives now as the agent's."""
    now = datetime.now(UTC)
    with town.redis.pipeline() as pipe:
        town.agents.write(
            agent.address, pipe=pipe, session=session.name, incarnation=session.incarnation, host=agent.host,
            started_at=datetime.fromtimestamp(session.started_at, UTC), changed_at=now, misses=0,
            last_activity=now, owed="false", failed="false",
        )  # fmt: skip
        pipe.hincrby(town.keys.agent(agent.address), "restarts", 1)
        tell(pipe, town.keys, "started", agent=agent.address, session=session.name, pid=session.pid)
        pipe.execute()


def _clear_away(town: Town, agent: Agent) -> None:
    """End what a start that failed has left, so that the next try finds its place free."""
    left = town.sessions.look(agent.session)
    if left is not None and left.incarnation and left.dead:
        town.sessions.end(left, grace=0.0)


def search_path(environ: Mapping[str, str] = os.environ) -> str:
    """The PATH with which sessions are started."""
    return environ.get("PATH", os.defpath)
