"""What is seen of agents: their states, read from tmux, the processes in front and the screens."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME, format_local
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.profile import Profile
from gastown_mail.programs.limit_time import limit_end
from gastown_mail.programs.reader import Reading, context_used, read_screen
from gastown_mail.programs.screen import Screen
from gastown_mail.programs.session_log import context_in_log
from gastown_mail.sessions.foreground import Foreground
from gastown_mail.sessions.panes import Session, Snapshot
from gastown_mail.sessions.poke import front_obstacle
from gastown_mail.sessions.session import Sessions
from gastown_mail.town.places import Places
from gastown_mail.town.records import AgentRecord

_QUIET = timedelta(seconds=1.3)
"""Without output for so long, a program is quiet; tmux gives whole seconds."""


@dataclass(frozen=True)
class Observation:
    """What is seen of one agent, and the line of the screen that says so.

    `since`: when this state was first seen, None if unknown. `active`: its last activity; what a status line
    does is none. `until`: when its usage limit ends. `context`: how full its context is, in percent.
    """

    state: AgentState
    line: str = ""
    since: datetime | None = None
    active: datetime | None = None
    until: datetime | None = None
    context: int | None = None
    screen: str = ""

    def in_words(self) -> str:
        """The state for people, with the line that says so."""
        if self.state is AgentState.LIMITED and self.until:
            return f"limited until {format_local(self.until)}: {self.line}"
        return f"{self.state}: {self.line}" if self.line else self.state.value

    def changes(self, record: AgentRecord) -> AgentRecord | None:
        """What to write into the agent's record; None when it says the same already."""
        seen = AgentRecord(
            state=self.state, state_since=self.since or ZERO_TIME, state_line=self.line,
            limited_until=self.until or ZERO_TIME, last_activity=self.active or ZERO_TIME, screen=self.screen,
        )  # fmt: skip
        return None if seen.given_fields().items() <= record.to_mapping().items() else seen


def observe_all(
    sessions: Sessions,
    agents: Iterable[tuple[Agent, AgentRecord]],
    profile_of: Callable[[Agent], Profile],
    places: Places,
    now: datetime,
    *,
    limit_wait: float,
) -> tuple[Snapshot, dict[str, Observation]]:
    """One snapshot of the sessions, and what is seen of these agents by address.

    `limit_wait`: seconds after which a usage limit without a time is taken to have ended. Raises StateUnknown
    or TmuxMissing.
    """
    pairs = list(agents)
    snapshot = sessions.snapshot()
    own = [session for agent, _ in pairs if (session := snapshot.of(agent, sessions.town))]
    screens, front = sessions.screens(one for one in own if one.incarnation), Foreground()
    look = _Look(snapshot, screens, front, places, now, limit_wait, sessions.tmux.environ)
    return snapshot, {agent.address: look.at(agent, profile_of(agent), record) for agent, record in pairs}


@dataclass(frozen=True)
class _Look:
    """All that is known at one moment."""

    sessions: Snapshot
    screens: Mapping[str, Screen]
    front: Foreground
    places: Places
    now: datetime
    limit_wait: float
    environ: Mapping[str, str]

    def at(self, agent: Agent, profile: Profile, record: AgentRecord) -> Observation:
        """What is seen of this agent."""
        session = self.sessions.of(agent, self.places.sessions.town)
        if session is not None and session.incarnation and self.places.is_left_behind(session, record):
            return Observation(AgentState.ELSEWHERE, f"on host {record.host}")
        if (session is None or not session.incarnation) and (elsewhere := self._elsewhere(agent, record)):
            return elsewhere
        if session is None:
            return self._dated(Observation(AgentState.NONE), record, None)
        if not session.incarnation:
            return Observation(
                AgentState.UNKNOWN, "its session is not managed; adopt it", active=session.activity
            )
        screen = self.screens.get(session.key)
        seen = self._dated(self._of_session(session, screen, profile), record, session)
        log = profile.context.log
        if agent.cycle_at is not None and seen.context is None and log and seen.state is AgentState.READY:
            environ = {**self.environ, **agent.env}
            used = context_in_log(log, agent.work_dir, environ, session.started_at)
            seen = replace(seen, context=used)
        return seen

    def _elsewhere(self, agent: Agent, record: AgentRecord) -> Observation | None:
        """Where an agent is believed to be that has no session here; None if it may be started here."""
        if unseen := self.places.unseen(record):
            return Observation(unseen.state, unseen.where)
        target = self.places.target_host(agent, record)
        if target != self.places.host:
            return Observation(AgentState.ELSEWHERE, f"on host {target}")
        return None

    def _of_session(self, session: Session, screen: Screen | None, profile: Profile) -> Observation:
        if session.dead:
            how = "" if session.exit_status is None else f"exit {session.exit_status}"
            last = _last_line(screen) if screen else ""
            return Observation(AgentState.ENDED, ": ".join(filter(None, (how, last))))
        front = self.front.front_of(session.pid)
        hidden = self.front.hidden_reader(session.pid) if profile.quiet else ""
        if obstacle := front_obstacle(profile, front, hidden):
            ended = front is not None and bool(front.shell or front.stopped)
            return Observation(AgentState.ENDED if ended else AgentState.UNKNOWN, obstacle)
        if screen is None:
            return Observation(AgentState.UNKNOWN, "its screen could not be read")
        reading = read_screen(profile, screen)
        seen = Observation(
            self._state(session, reading, profile), reading.line,
            context=context_used(profile, screen, reading), screen=_digest(screen, reading),
        )  # fmt: skip
        return replace(seen, line="") if seen.state in (AgentState.BUSY, AgentState.STARTING) else seen

    def _state(self, session: Session, reading: Reading, profile: Profile) -> AgentState:
        state = reading.state
        if profile.quiet and state in (AgentState.READY, AgentState.UNKNOWN):
            is_quiet = self.now - session.activity > _QUIET
            return state if is_quiet else AgentState.BUSY
        return state

    def _dated(self, seen: Observation, record: AgentRecord, session: Session | None) -> Observation:
        """The same with its times: those of the record while it tells of the same."""
        same_session = session is None or session.incarnation == record.incarnation
        same = same_session and (record.state, record.state_line) == (seen.state, seen.line)
        unmoved = same_session and bool(seen.screen) and record.screen == seen.screen
        active = max(session.activity, session.started_at) if session else None
        if active and unmoved and record.last_activity != ZERO_TIME:
            active = min(active, record.last_activity)
        began = active if seen.state in (AgentState.READY, AgentState.DRAFT, AgentState.ASKS) else self.now
        since = record.state_since if same and record.state_since != ZERO_TIME else began
        until = (
            self._limit(seen, record, since or self.now, same) if seen.state is AgentState.LIMITED else None
        )
        return replace(seen, since=since, active=active, until=until)

    def _limit(self, seen: Observation, record: AgentRecord, since: datetime, same: bool) -> datetime:
        """When the limit ends: as the line says, counted from when it was first seen, or from the last poke
        after which it still says so."""
        stored = record.limited_until if same else ZERO_TIME
        if stored != ZERO_TIME and record.last_poke < stored:
            return stored
        counted_from = max(since, record.last_poke) if stored != ZERO_TIME else since
        return limit_end(seen.line, counted_from) or counted_from + timedelta(seconds=self.limit_wait)


def _last_line(screen: Screen) -> str:
    rows = [row.strip() for row in screen.rows if row.strip() and not row.startswith("Pane is dead")]
    return rows[-1][:200] if rows else ""


def _digest(screen: Screen, reading: Reading) -> str:
    """A fingerprint of what stands above the input line: a status line does not change it."""
    rows = screen.rows[: reading.input.first] if reading.input else screen.rows
    return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()[:16]
