"""The heartbeat's decision for each agent: start it, poke it, or skip it, and why. Pure."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME, format_local
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.settings import DaemonSettings
from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import NO_HISTORY, is_stable
from gastown_mail.town.observed import Observation
from gastown_mail.town.records import AgentRecord, Desired

_POKE_ECHO = timedelta(seconds=3)
"""Activity this soon after a poke is the poke's own echo, not an answer."""

_POKE_EARLY_FRACTION = 0.1
"""The fraction of the heartbeat interval by which a poke may be early: heartbeats are not exact."""


@dataclass(frozen=True)
class StartAgent:
    """The agent should be running and is not."""

    agent: Agent
    why: str


@dataclass(frozen=True)
class PokeAgent:
    """The agent is due for a poke. `unanswered` pokes before this one got no answer.

    `limit_over`: the usage limit that its screen still tells of has ended.
    """

    agent: Agent
    session: Session
    text: str
    unanswered: int
    limit_over: bool = False

    @property
    def why(self) -> str:
        """The decision in words."""
        return "poked: its usage limit has ended" if self.limit_over else "poked: idle and due"


@dataclass(frozen=True)
class ReleaseAgent:
    """The agent belongs to another host now: its session here is to be ended, and its place to be left."""

    agent: Agent
    host: str

    @property
    def why(self) -> str:
        """The decision in words."""
        return f"released: it moves to host {self.host}"


@dataclass(frozen=True)
class CycleAgent:
    """Its context is as full as `cycle_at` allows: a cycle is asked for in its place."""

    agent: Agent
    session: Session
    used: int

    @property
    def why(self) -> str:
        """The decision in words."""
        return f"cycle asked for: its context is {self.used} % full"


class SkipKind(enum.StrEnum):
    """The first words of a decision to do nothing, as they are stored; `explain` shows them unchanged."""

    LEFT_ALONE = "left alone"
    NOT_STARTED = "not started"
    NOT_POKED = "not poked"


@dataclass(frozen=True)
class Skip:
    """Nothing is to be done, and why."""

    agent: Agent
    kind: SkipKind
    detail: str

    @property
    def why(self) -> str:
        """The decision in words."""
        return f"{self.kind}: {self.detail}"


Decision = StartAgent | PokeAgent | CycleAgent | ReleaseAgent | Skip


def should_run(agent: Agent, record: AgentRecord) -> bool:
    """Whether a session of this agent should be started when there is none."""
    return (agent.keep_running or record.successor_owed) and record.desired in (None, Desired.RUNNING)


@dataclass(frozen=True)
class AgentSnapshot:
    """One agent at the heartbeat, its record, its session (None: it has none here), and what is seen.

    `moves_to`: the living host for which this one is to release it.
    """

    agent: Agent
    record: AgentRecord
    session: Session | None
    seen: Observation
    moves_to: str = ""

    def decide(self, now: datetime, settings: DaemonSettings) -> Decision:
        """What the heartbeat does with this agent."""
        agent, record, session, seen = self.agent, self.record, self.session, self.seen
        if record.damage:
            return Skip(agent, SkipKind.LEFT_ALONE, record.damage)
        if record.desired in (Desired.STOPPED, Desired.PAUSED):
            return Skip(agent, SkipKind.LEFT_ALONE, record.desired.value)
        if self.moves_to:
            return ReleaseAgent(agent, self.moves_to)
        if seen.state is AgentState.ELSEWHERE or (session is None and seen.state is AgentState.UNKNOWN):
            return Skip(agent, SkipKind.LEFT_ALONE, f"it is believed to live {seen.line}")
        if session is None or (session.dead and session.incarnation):
            state = "has ended" if session else "is not there"
            if not should_run(agent, record):
                return Skip(agent, SkipKind.LEFT_ALONE, f"its session {state}, and keep_running is false")
            if reason := record.start_history.blocked_reason(now):
                return Skip(agent, SkipKind.NOT_STARTED, reason)
            why = "a request ended it" if record.successor_owed else "it must keep running"
            return StartAgent(agent, f"its session {state} and {why}")
        if not session.incarnation:
            return Skip(agent, SkipKind.LEFT_ALONE, "its session is not managed; adopt it")
        if self.must_cycle(session):
            return CycleAgent(agent, session, self.seen.context or 0)
        return self.poke_or_skip(session, now, settings)

    def must_cycle(self, session: Session) -> bool:
        """Whether a cycle is to be asked for: once per incarnation, when it is ready and nobody looks on."""
        seen, limit = self.seen, self.agent.cycle_at
        full = limit is not None and seen.context is not None and seen.context >= limit
        asked = self.record.cycle_asked == session.incarnation
        return full and not asked and seen.state is AgentState.READY and not session.attached

    def poke_or_skip(self, session: Session, now: datetime, settings: DaemonSettings) -> Decision:
        """What the heartbeat does with an agent whose session is alive."""
        agent, seen, active = self.agent, self.seen, self.seen.active or session.activity
        if not agent.poke:
            return Skip(agent, SkipKind.NOT_POKED, "it has no poke")
        if session.attached:
            return Skip(agent, SkipKind.NOT_POKED, "a person is attached")
        if seen.state is AgentState.LIMITED and seen.until and seen.until <= now:
            return PokeAgent(agent, session, agent.poke, self.unanswered(session), limit_over=True)
        if seen.state is not AgentState.READY:
            return Skip(agent, SkipKind.NOT_POKED, seen.in_words())
        if now - active < timedelta(seconds=settings.fresh_after):
            return Skip(agent, SkipKind.NOT_POKED, f"active at {format_local(active)}")
        unanswered = self.unanswered(session)
        due = self.next_poke_at(unanswered, settings)
        if due - now > timedelta(seconds=settings.heartbeat_interval * _POKE_EARLY_FRACTION):
            return Skip(agent, SkipKind.NOT_POKED, f"due at {format_local(due)}")
        return PokeAgent(agent, session, agent.poke, unanswered)

    def unanswered(self, session: Session) -> int:
        """How many pokes in a row got no answer; pokes of another session do not count."""
        last = self.record.last_poke
        if last == ZERO_TIME or last < session.started_at:
            return 0
        answered = (self.seen.active or session.activity) > last + _POKE_ECHO
        return 0 if answered else self.record.unanswered + 1

    def next_poke_at(self, unanswered: int, settings: DaemonSettings) -> datetime:
        """The heartbeat interval after the last poke, longer after each unanswered one, up to a limit."""
        last = self.record.last_poke
        if last == ZERO_TIME:
            return last
        longest = max(settings.poke_backoff_max, settings.heartbeat_interval)
        seconds = settings.heartbeat_interval * settings.poke_backoff_factor ** min(unanswered, 64)
        return last + timedelta(seconds=min(seconds, longest))

    def is_stable(self, now: datetime, settings: DaemonSettings) -> bool:
        """Whether its session has lived long enough for a start history to be forgotten."""
        session = self.session
        return session is not None and not session.dead and is_stable(session.started_at, now, settings)


def plan(snapshots: Iterable[AgentSnapshot], now: datetime, settings: DaemonSettings) -> list[Decision]:
    """One decision for each agent, all from one snapshot of the town."""
    return [snapshot.decide(now, settings) for snapshot in snapshots]


def stable_agents(snapshots: Iterable[AgentSnapshot], now: datetime, settings: DaemonSettings) -> list[Agent]:
    """The agents whose start history can be forgotten."""
    return [s.agent for s in snapshots if s.record.start_history != NO_HISTORY and s.is_stable(now, settings)]
