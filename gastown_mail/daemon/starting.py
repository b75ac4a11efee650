"""Starting an agent's session: is it startable, what does it get to know, and the start itself."""

import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import StartFailed
from gastown_mail.daemon.gate import record_start
from gastown_mail.daemon.record import nothing
from gastown_mail.daemon.town import Town
from gastown_mail.daemon.turn import Lease
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.sessions.session import Session

RETRY_PAUSES = (0.2, 1.0)
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


def session_environment(town: Town, agent: Agent, incarnation: str, handoff: Path | None) -> dict[str, str]:
    """What a session finds in its environment (CONTRACTS section 7)."""
    given = {
        "GASTOWN_TOWN": str(town.settings.town_root),
        "GASTOWN_TOWN_NAME": town.settings.town_name,
        "GASTOWN_REDIS_URL": town.settings.daemon.agent_redis_url or town.redis_url,
        "GASTOWN_AGENT": agent.address,
        "GASTOWN_INCARNATION": incarnation,
        "GT_ROLE": agent.role,
    }
    return {**agent.env, **given} | ({"GASTOWN_HANDOFF": str(handoff)} if handoff else {})


@dataclass(frozen=True)
class SessionStart:
    """One start of an agent's session, by the holder of the agent's turn.

    `earlier` are the incarnations that were announced for this same purpose before; `announce` writes them
    down with each new one before that exists. An automatic start counts in the agent's history (see `gate`),
    and so does any that fails. `request` is the id of the request that asks for it.
    """

    town: Town
    lease: Lease
    agent: Agent
    why: str
    handoff: Path | None
    previous_tokens: Collection[str] = ()
    on_new_token: Callable[[Any, Collection[str]], object] = nothing
    automatic: bool = False
    request: str = ""

    def run(self) -> Session:
        """Start the session and write it down; a program that ends at once is tried again.

        Raises StartFailed when all tries are used, Unknown when nothing can be said or the turn is lost.
        """
        announced = list(self.previous_tokens)
        for pause in (*RETRY_PAUSES, None):
            try:
                session = self._once(announced)
            except StartFailed as error:
                self._tell("start_failed", str(error))
                if pause is None:
                    self._count(failed=True)
                    raise
                time.sleep(pause)
                _remove_failed(self.town, self.agent)
            else:
                if self.automatic:
                    self._count(failed=False)
                return session
        raise AssertionError("the last try returns or raises")

    def _once(self, announced: list[str]) -> Session:
        incarnation = new_incarnation()
        announced.append(incarnation)
        address = self.agent.address
        # While the turn is ours only: who stood still would forget what its follower has announced.
        generation = self.lease.transaction(
            lambda pipe: self.town.agents.bump_generation(
                pipe, address, lambda p: self.on_new_token(p, announced)
            ),
            self.town.keys.agent(address),
        )
        failpoint("successor-announced")
        # After the generation: whoever takes over from here on has a newer one, and tmux refuses ours.
        self.lease.ensure_held()
        try:
            session = self._start(incarnation, generation)
        except StartFailed:
            earlier = _find_started(self.town, self.agent, announced)
            if earlier is None:
                raise
            session = earlier
        failpoint("session-started")
        record_session(self.town, self.lease, self.agent, session, self.request)
        failpoint("start-noted")
        return session

    def _start(self, incarnation: str, generation: int) -> Session:
        town, agent = self.town, self.agent
        prompt = first_prompt(agent, town.settings.town_name, self.why, self.handoff)
        return town.sessions.start(
            agent, incarnation=incarnation, generation=generation,
            environ=session_environment(town, agent, incarnation, self.handoff),
            command=agent.command_line(prompt, town.settings.town_root),
        )  # fmt: skip

    def _count(self, *, failed: bool) -> None:
        now, address = time.time(), self.agent.address
        gate = record_start(
            self.town.agents.read(address).gate, now, self.town.settings.daemon, failed=failed
        )
        self.town.agents.write_gate(address, gate)
        if gate.failures > 1 or failed:
            self._tell("back_off", gate.blocked_reason(now) or "")

    def _tell(self, event: str, detail: str) -> None:
        record_event(self.town.redis, self.town.keys, event, agent=self.agent.address, request=self.request,
             detail=detail)  # fmt: skip


def _find_started(town: Town, agent: Agent, announced: Collection[str]) -> Session | None:
    """The living session that an earlier process has started for this same purpose, None if there is none."""
    session = town.sessions.find(agent.session)
    ours = session is not None and not session.dead and session.incarnation in announced
    return session if ours else None


def record_session(town: Town, lease: Lease, agent: Agent, session: Session, request: str = "") -> None:
    """Record the session that lives now as the agent's; `request` is the id of the one it was started for.

    Raises Unknown when the turn is lost.
    """
    now = datetime.now(UTC)

    def write(pipe: Any) -> None:
        pipe.multi()
        town.agents.write(
            agent.address, pipe=pipe, session=session.name, incarnation=session.incarnation, host=agent.host,
            started_at=datetime.fromtimestamp(session.started_at, UTC), changed_at=now, misses=0,
            last_activity=now, owed="false", failed="false",
        )  # fmt: skip
        pipe.hincrby(town.keys.agent(agent.address), "restarts", 1)
        record_event(pipe, town.keys, "started", agent=agent.address, request=request,
             session=session.name, pid=session.pid)  # fmt: skip

    lease.transaction(write)


def _remove_failed(town: Town, agent: Agent) -> None:
    """End what a start that failed has left, so that the next try finds its place free."""
    left = town.sessions.find(agent.session)
    if left is not None and left.incarnation and left.dead:
        town.sessions.end(left, grace=0.0)


def search_path(environ: Mapping[str, str] = os.environ) -> str:
    """The PATH with which sessions are started."""
    return environ.get("PATH", os.defpath)
