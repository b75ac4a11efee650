"""The heartbeat's decision: whom to start, whom to poke, whom to leave alone and why. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME, format_time
from gastown_mail.contracts.settings import DaemonSettings
from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import NO_HISTORY, is_stable
from gastown_mail.town.records import AgentRecord, Desired

POKE_ECHO = timedelta(seconds=3)
"""Activity this soon after a poke is the poke's own echo, not an answer."""

POKE_EARLY_FRACTION = 0.1
"""Which part of the heartbeat's interval a poke may be early: heartbeats do not come to the millisecond."""


@dataclass(frozen=True)
class AgentSnapshot:
    """One agent at the heartbeat: what it is, what is recorded, and its session (None: certainly none)."""

    agent: Agent
    record: AgentRecord
    session: Session | None


@dataclass(frozen=True)
class StartAgent:
    """It must run and does not."""

    agent: Agent
    why: str


@dataclass(frozen=True)
class PokeAgent:
    """It is due. `misses` pokes before this one were not answered."""

    agent: Agent
    session: Session
    text: str
    unanswered: int

    why = "poked: idle and due"


@dataclass(frozen=True)
class Skip:
    """Nothing is to be done, and why."""

    agent: Agent
    why: str


Decision = StartAgent | PokeAgent | Skip


def plan(snapshots: Iterable[AgentSnapshot], now: datetime, settings: DaemonSettings) -> list[Decision]:
    """One act for each agent, from one snapshot."""
    return [_plan_one(one, now, settings) for one in snapshots]


def should_run(agent: Agent, record: AgentRecord) -> bool:
    """Should a session of this agent be started when there is none?"""
    return (agent.keep_running or record.owed) and record.desired in (None, Desired.RUNNING)


def _plan_one(one: AgentSnapshot, now: datetime, settings: DaemonSettings) -> Decision:
    agent, record, session = one.agent, one.record, one.session
    if record.desired in (Desired.STOPPED, Desired.PAUSED):
        return Skip(agent, f"left alone: {record.desired.value}")
    if session is None or (session.dead and session.incarnation):
        state = "has ended" if session else "is not there"
        return _start_or_not(one, state, now)
    if not session.incarnation:
        return Skip(agent, "left alone: its session is not ours; adopt it")
    return _poke_or_not(one, session, now, settings)


def _start_or_not(one: AgentSnapshot, state: str, now: datetime) -> Decision:
    if not should_run(one.agent, one.record):
        return Skip(one.agent, f"left alone: its session {state}, and keep_running is false")
    if refusal := one.record.gate.blocked_reason(now.timestamp()):
        return Skip(one.agent, f"not started: {refusal}")
    why = "a request ended it" if one.record.owed else "it must keep running"
    return StartAgent(one.agent, f"its session {state} and {why}")


def stable_agents(snapshots: Iterable[AgentSnapshot], now: datetime, settings: DaemonSettings) -> list[Agent]:
    """The agents whose sessions have lived long enough for their start history to be forgotten."""
    return [
        one.agent
        for one in snapshots
        if one.record.gate != NO_HISTORY
        and one.session is not None
        and not one.session.dead
        and is_stable(one.session.started_at, now.timestamp(), settings)
    ]


def _poke_or_not(one: AgentSnapshot, session: Session, now: datetime, settings: DaemonSettings) -> Decision:
    agent, record = one.agent, one.record
    if not agent.poke:
        return Skip(agent, "not poked: it has no poke")
    if session.attached:
        return Skip(agent, "not poked: a person is attached")
    idle = now - _moment(session.activity)
    if idle < timedelta(seconds=settings.fresh_after):
        return Skip(agent, f"not poked: active at {_text(now - idle)}")
    misses = _unanswered(record, session)
    due = next_poke_at(record, misses, settings)
    if due - now > timedelta(seconds=settings.heartbeat_interval * POKE_EARLY_FRACTION):
        return Skip(agent, f"not poked: due at {_text(due)}")
    return PokeAgent(agent, session, agent.poke, misses)


def _unanswered(record: AgentRecord, session: Session) -> int:
    """How many pokes in a row got no answer; another session's pokes do not count."""
    if record.last_poke == ZERO_TIME or record.last_poke < _moment(session.started_at):
        return 0
    answered = _moment(session.activity) > record.last_poke + POKE_ECHO
    return 0 if answered else record.misses + 1


def next_poke_at(record: AgentRecord, unanswered: int, settings: DaemonSettings) -> datetime:
    """When the next poke is due: the heartbeat's interval after the last, longer after each miss, bounded."""
    if record.last_poke == ZERO_TIME:
        return record.last_poke
    longest = max(settings.poke_backoff_max, settings.heartbeat_interval)
    seconds = settings.heartbeat_interval * settings.poke_backoff_factor ** min(unanswered, 64)
    return record.last_poke + timedelta(seconds=min(seconds, longest))


def _text(moment: datetime) -> str:
    """A moment in words that stay true, and the same, from one heartbeat to the next."""
    return format_time(moment.replace(microsecond=0).astimezone())


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
