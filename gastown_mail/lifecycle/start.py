"""Starting an agent's session: whether it should start, what it is given, and the start itself."""

import enum
import os
import secrets
import shlex
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import (
    GastownError,
    Postponed,
    ProcessesSurvived,
    StartFailed,
    StateUnknown,
)
from gastown_mail.lifecycle.heartbeat_policy import should_run
from gastown_mail.lifecycle.preflight import generation_obstacle, search_path, start_obstacle
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.environment import COMMAND, own_command, passed_environment
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import StartHistory, check_crash_loop, record_start
from gastown_mail.town.lease import Lease, hold_lease
from gastown_mail.town.records import AgentRecord, Desired, nothing
from gastown_mail.town.town import Town, ensure_running

_RETRY_PAUSES = (0.2, 1.0)
"""Seconds before the second and the third attempt; after that the start has failed."""


class StartResult(enum.StrEnum):
    """How an attempt to start an agent ended."""

    STARTED = "started"
    RUNNING = "runs already"
    BUSY = "busy"
    SKIPPED = "left alone"
    FAILED = "failed"


@dataclass(frozen=True)
class StartOutcome:
    """The outcome of a start; its text is what rq keeps as the job's result."""

    result: StartResult
    detail: str = ""

    def __str__(self) -> str:
        if self.result is StartResult.STARTED:
            return f"started {self.detail}"
        return f"{self.result}: {self.detail}" if self.detail else self.result.value

    @classmethod
    def parse(cls, text: str) -> "StartOutcome":
        """The outcome with this text; any unknown text is a failure."""
        for result in StartResult:
            if text.startswith(result):
                return cls(result, text.removeprefix(result).lstrip(": "))
        return cls(StartResult.FAILED, text)


def start_agent(town: Town, address: str, why: str, by: str = "") -> StartOutcome:
    """Start the agent's session unless it has one or should not run.

    `by` names the person who asked; without it the start is automatic, and back-off and quarantine hold.
    """
    agent = town.roster().resolve(address)
    with hold_lease(town.redis, town.keys.lease(agent.address), town.host) as lease:
        if lease is None:
            detail = "another operation on this agent is in progress; try again"
            return StartOutcome(StartResult.BUSY, detail)
        try:
            ensure_running(town)
            outcome = _start_if_wanted(town, lease, agent, why, by)
        except (StartFailed, ProcessesSurvived, StateUnknown, Postponed) as error:
            # the sweep tries again and again: the same reason is told once
            if town.agents.note_start_fault(agent.address, str(error)) or by:
                detail = str(error)
                record_event(town.redis, town.keys, EventName.NOT_STARTED, agent=address, detail=detail)
            return StartOutcome(StartResult.FAILED, str(error))
    town.enqueue_next(agent.address)
    return outcome


def _start_if_wanted(town: Town, lease: Lease, agent: Agent, why: str, by: str) -> StartOutcome:
    record, session = town.agents.read(agent.address), town.sessions.find(agent)
    if session is not None and session.incarnation and not session.dead:
        return StartOutcome(StartResult.RUNNING)
    places = town.places()
    if session is None and (unseen := places.unseen(record)):
        return StartOutcome(StartResult.SKIPPED, f"{agent.address} is believed to live {unseen.where}")
    if (target := places.target_host(agent, record)) != town.host:
        return StartOutcome(StartResult.SKIPPED, f"{agent.address} belongs to host {target}")
    if reason := _skip_reason(town, agent, record, session, by):
        return StartOutcome(StartResult.SKIPPED, reason)
    if fault := start_obstacle(town, agent) or generation_obstacle(town, agent, record):
        raise StartFailed(fault)
    record_event(town.redis, town.keys, EventName.STARTING, agent=agent.address, detail=why)
    grace, command = agent.stop_grace, agent.command
    if session is not None:
        record_spared(town, agent, town.sessions.end(session, grace=grace, command=command))
    elif record.incarnation:
        spared = town.sessions.end_orphans(record.incarnation, grace=grace, command=command)
        record_spared(town, agent, spared)
    # a cycle whose successor did not come up has left its handoff for this one
    file = town.handoff_file(agent)
    handoff = file if record.successor_owed and file.exists() else None
    started = SessionStart(town, lease, agent, why, handoff, left=record, automatic=not by).run()
    return StartOutcome(StartResult.STARTED, f"{started.name}, pid {started.pid}")


def _skip_reason(
    town: Town, agent: Agent, record: AgentRecord, session: Session | None, by: str
) -> str | None:
    """Why the agent is not started now, None when it is; records a crash loop that it finds."""
    if session is not None and not session.incarnation:
        return f"the session {session.name} is not managed; adopt it"
    if request := town.requests.in_progress(agent.address):
        return f"request {request} is being carried out"
    if record.desired in (Desired.PAUSED, Desired.STOPPED):
        return record.desired.value
    if by:
        return None
    if not should_run(agent, record):
        return "it need not run"
    now = town.now()
    history = check_crash_loop(record.start_history, now, town.settings.daemon)
    if history != record.start_history:
        town.agents.write_start_history(agent.address, history)
    reason = history.blocked_reason(now)
    if reason and history.quarantined_until != record.start_history.quarantined_until:
        record_event(town.redis, town.keys, EventName.QUARANTINED, agent=agent.address, detail=reason)
    return reason


def new_incarnation() -> str:
    """A new session token: 128 random bits, never reused and impossible to guess."""
    return secrets.token_hex(16)


def first_prompt(agent: Agent, town_name: str, why: str, handoff: Path | None, command: str) -> str:
    """The prompt that tells a session its agent, why it was started, where its handoff is, how to ask."""
    sentences = [
        f"You are {agent.address}, {agent.role} in the town {town_name}.",
        f"You were started because {why}.",
    ]
    if handoff:
        sentences.append(f"Your predecessor left you a handoff: read {handoff} first.")
    asking = shlex.quote(command or COMMAND)
    sentences.append(f"To renew or end your session, run {asking} send cycle (or restart, or shutdown).")
    return " ".join(sentences)


def session_environment(
    town: Town, agent: Agent, incarnation: str, handoff: Path | None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a session gets over `clean_environment`: see docs/reference/contract.md#session-environment.

    `environ` is the daemon's environment.
    """
    command = own_command(environ)
    given = {
        "GASTOWN_TOWN": str(town.settings.town_root),
        "GASTOWN_TOWN_NAME": town.settings.town_name,
        "GASTOWN_REDIS_URL": town.settings.daemon.agent_redis_url or town.redis_url,
        "GASTOWN_AGENT": agent.address,
        "GASTOWN_INCARNATION": incarnation,
        "GT_ROLE": agent.role,
        "PATH": search_path(agent, environ),
    }
    least = town.settings.daemon.min_replicas
    given |= {"GASTOWN_MIN_REPLICAS": str(least)} if least else {}
    given |= {"GASTOWN_MAIL": command} if command else {}
    given |= {"GASTOWN_HANDOFF": str(handoff)} if handoff else {}
    return {**passed_environment(environ, agent.env_pass, town.redis_url), **agent.env, **given}


@dataclass(frozen=True)
class SessionStart:
    """One start of an agent's session, by the process that holds the agent's lease.

    `left`: the record by which the place where the agent lived is empty or known to be dead.
    `previous_tokens` are the incarnations announced for this purpose before; `on_new_token` records them,
    with each new one, before its session exists. An automatic start counts in the agent's start history,
    and so does any start that fails. `request` is the id of the request that asks for it.
    """

    town: Town
    lease: Lease
    agent: Agent
    why: str
    handoff: Path | None
    left: AgentRecord
    previous_tokens: Collection[str] = ()
    on_new_token: Callable[[Any, Collection[str]], object] = nothing
    automatic: bool = False
    request: str = ""

    def run(self) -> Session:
        """Start the session and record it; a program that ends at once is tried again.

        Raises StartFailed when all attempts are used, StateUnknown when tmux gives no usable answer,
        Postponed when the lease is lost.
        """
        announced = list(self.previous_tokens)
        for pause in (*_RETRY_PAUSES, None):
            try:
                session = self._once(announced)
            except StartFailed as error:
                self._record(EventName.START_FAILED, str(error))
                if pause is None:
                    self._count(failed=True)
                    raise
                time.sleep(pause)
                # what the failed start has left must not be in the way of the next attempt
                left = self.town.sessions.find(self.agent)
                if left is not None and left.incarnation and left.dead:
                    spared = self.town.sessions.end(left, grace=0.0, command=self.agent.command)
                    record_spared(self.town, self.agent, spared, self.request)
            else:
                if self.automatic:
                    self._count(failed=False)
                return session
        raise AssertionError("the last attempt returns or raises")

    def _once(self, announced: list[str]) -> Session:
        town, agent, incarnation = self.town, self.agent, new_incarnation()
        announced.append(incarnation)

        # only while the lease is held: a process that was paused would drop its successor's announcement
        def also(pipe: Any) -> None:
            town.revision.advance(pipe)
            self.on_new_token(pipe, announced)

        def announce(pipe: Any) -> int:
            town.revision.require_current(pipe)
            place = town.places().place()
            return town.agents.bump_generation(pipe, agent.address, also, place, self.left)

        generation = self.lease.transaction(announce, town.keys.agent(agent.address))
        town.confirm()
        failpoint("successor-announced")
        # after the generation: a process that takes over from here has a newer one, and tmux refuses this one
        self.lease.ensure_held()
        prompt = first_prompt(agent, town.settings.town_name, self.why, self.handoff, own_command())
        try:
            session = town.sessions.start(
                agent, incarnation=incarnation, generation=generation,
                environ=session_environment(town, agent, incarnation, self.handoff),
                command=agent.command_line(prompt, town.settings.town_root),
            )  # fmt: skip
        except StartFailed:
            # an earlier process may have started it for this very purpose
            living = town.sessions.find(agent)
            if living is None or living.dead or living.incarnation not in announced:
                raise
            session = living
        failpoint("session-started")
        record_session(town, self.lease, agent, session, self.request)
        failpoint("start-noted")
        return session

    def _count(self, *, failed: bool) -> None:
        now, agents, address = self.town.now(), self.town.agents, self.agent.address
        history = record_start(
            agents.read(address).start_history, now, self.town.settings.daemon, failed=failed
        )
        agents.write_start_history(address, history)
        if history.failures > 1 or failed:
            self._record(EventName.BACK_OFF, history.blocked_reason(now) or "")

    def _record(self, event: EventName, detail: str) -> None:
        record_event(
            self.town.redis, self.town.keys, event, agent=self.agent.address, request=self.request,
            detail=detail,
        )  # fmt: skip


def record_session(town: Town, lease: Lease, agent: Agent, session: Session, request: str = "") -> None:
    """Record this session as the agent's; `request` is the id of the request it was started for.

    Raises Postponed when the lease is lost.
    """
    now, place = town.now(), town.places().place(session)
    record = AgentRecord(
        session=session.name, incarnation=session.incarnation,
        started_at=session.started_at, changed_at=now, last_activity=now,
        unanswered=0, successor_owed=False, start_history=StartHistory(failed=False), start_fault="",
    )  # fmt: skip

    def write(pipe: Any) -> None:
        pipe.multi()
        town.agents.write(agent.address, record, place, pipe=pipe)
        pipe.hincrby(town.keys.agent(agent.address), "restarts", 1)
        record_event(
            pipe, town.keys, EventName.STARTED, agent=agent.address, request=request, session=session.name,
            pid=session.pid,
        )  # fmt: skip

    lease.transaction(write)


def record_spared(town: Town, agent: Agent, spared: str, request: str = "") -> None:
    """Record the shared daemons that were spared when a session of the agent ended; nothing if "" ."""
    if spared:
        record_event(
            town.redis, town.keys, EventName.SPARED, agent=agent.address, request=request, detail=spared
        )


def adopt_session(town: Town, agent: Agent) -> Session:
    """Take over the session that was started outside under the agent's session name; it gets a token.

    Raises GastownError when there is no such session or it has a token already.
    """
    with hold_lease(town.redis, town.keys.lease(agent.address), town.host) as lease:
        if lease is None:
            raise GastownError(f"another operation on {agent.address} is in progress; try again")
        session = town.sessions.find(agent)
        if session is None:
            raise GastownError(
                f"there is no session {agent.session}; gastown-mail run {agent.address} starts one"
            )
        if session.incarnation:
            raise GastownError(f"the session {agent.session} is managed already")
        generation = town.agents.next_generation(agent.address)
        adopted = town.sessions.adopt(session, agent, incarnation=new_incarnation(), generation=generation)
        record_session(town, lease, agent, adopted)
        record_event(town.redis, town.keys, EventName.ADOPTED, agent=agent.address, session=adopted.name)
        return adopted
