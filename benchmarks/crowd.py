"""Many live agents at once; their sessions are made in batches, as fast as tmux can."""

import resource
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, StartFailed
from gastown_mail.lifecycle.start import new_incarnation, session_environment
from gastown_mail.sessions.commands import SessionSpec, new_session
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town

BATCH = 50
SPARE = 100
"""Spare terminals and files besides the one for each agent."""


class NoRoom(GastownError):
    """This machine cannot run that many sessions; choose fewer --agents."""


def require_room(agents: int) -> None:
    """Raise NoRoom when the machine's limits are below what the sessions need."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {"open files (ulimit -n)": files}
    most, used = (Path("/proc/sys/kernel/pty") / name for name in ("max", "nr"))
    if most.exists():
        limits["free terminals (kernel.pty.max)"] = int(most.read_text()) - int(used.read_text())
    for what, limit in limits.items():
        if 0 <= limit < agents + SPARE:
            raise NoRoom(
                f"{agents} sessions need {agents + SPARE} {what}, and there are {limit}: "
                "raise that, or choose fewer --agents"
            )


def start(town: Town, agents: Sequence[Agent]) -> None:
    """Start a session for each agent and record it like the daemon: idle, just poked, not due."""
    tokens = {agent.address: new_incarnation() for agent in agents}
    for batch in _batches(agents):
        answer = town.sessions.tmux.script(_creations(town, batch, tokens), cwd=town.settings.town_root)
        if answer.lines.count("started") != len(batch):
            raise StartFailed(
                f"tmux did not start all of {len(batch)} sessions: {answer.errors or 'it gives no reason'}"
            )
    now = datetime.now(UTC)
    with town.redis.pipeline(transaction=False) as pipe:
        for agent in agents:
            record = AgentRecord(
                desired=Desired.RUNNING, session=agent.session, host=agent.host,
                incarnation=tokens[agent.address], started_at=now, last_poke=now, last_activity=now,
            )  # fmt: skip
            town.agents.write(agent.address, record, pipe=pipe)
        pipe.execute()


def _creations(town: Town, agents: Sequence[Agent], tokens: dict[str, str]) -> list[str]:
    generation, names = time.time_ns() // 10**6, town.sessions.tmux.global_environment()
    return [
        new_session(
            SessionSpec(
                agent, tokens[agent.address], generation, datetime.now(UTC),
                command=agent.command_line("", town.settings.town_root),
                environ=session_environment(town, agent, tokens[agent.address], None),
                base=town.sessions.tmux.environ,
            ),
            names,
        )
        for agent in agents
    ]  # fmt: skip


def _batches(agents: Sequence[Agent]) -> Iterator[Sequence[Agent]]:
    return (agents[first : first + BATCH] for first in range(0, len(agents), BATCH))
