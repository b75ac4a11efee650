"""The documents of `status`, `agents`, `explain` and `doctor`, in version 1 of their format.

Times are RFC 3339 with a zone. Null means never, or not known: then `unknown` says why. A key may be added to
version 1; none is renamed or removed.
"""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.lifecycle.heartbeat_policy import should_run
from gastown_mail.sessions.panes import Session, Snapshot
from gastown_mail.town.observed import Observation
from gastown_mail.town.places import Places
from gastown_mail.town.records import AgentRecord

_Seconds = Annotated[float, Field(description="seconds")]
_Wanted = Literal["running", "stopped", "paused", "unknown"]
StateSource = Literal["redis", "state.json"]
Source = Literal["settings", "state", "redis", "tmux", "roster", "records", "schedule", "workers", "mail"]
Observed = Literal["alive", "ended", "none", "foreign", "elsewhere", "unknown"]
OBSERVED: tuple[Observed, ...] = get_args(Observed)

_TELLING = frozenset(
    (AgentState.ASKS, AgentState.LIMITED, AgentState.DRAFT, AgentState.ENDED, AgentState.UNKNOWN)
)
"""The states of which a line tells more."""


class _Document(BaseModel):
    """A part of a document; frozen, without other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Problem(_Document):
    """One reason why the town is degraded."""

    reason: str
    """What is wrong, in a few words."""
    remedy: str
    """What to do about it, or the error in place of an answer."""


class Daemon(_Document):
    """The daemon, by its lock and its own state."""

    held: bool
    """A live process holds the town's lock; the kernel was asked just now."""
    pid: int | None = None
    """The pid of the lock holder if it is visible here; else the one in the state."""
    frozen: bool = False
    """The process is suspended (SIGSTOP)."""
    running: bool | None = None
    """What the state says."""
    since: datetime | None = None
    """When it started."""
    state_from: StateSource | None = None
    """Where the state was read: Redis, or the file."""
    state_age: _Seconds | None = None
    """How long ago the file was written; 0 if the state is from Redis."""


class Heartbeat(_Document):
    """The heartbeats since the daemon started."""

    count: int
    """How many were completed."""
    last: datetime | None = None
    age: _Seconds | None = None
    """How long ago the last one was completed."""
    next: datetime | None = None
    """When the next one is due on this host."""
    due_in: _Seconds | None = None
    """Time until then; negative if it is overdue."""
    interval: _Seconds | None = None


class Host(_Document):
    """The live rq workers of one host of the town."""

    host: str
    here: bool
    """This is the host on which the command ran."""
    lifecycle: int
    """Workers that carry out requests, start and poke."""
    expected: int | None = None
    """How many of these there should be; known for this host only."""
    heartbeat: int
    """Workers that run the heartbeat."""
    seen: datetime | None = None
    """When its daemon last said that it is alive; null if it never did."""
    agents: list[str] = []
    """The agents that are believed to live there, for hosts other than this one."""


class InboxStatus(_Document):
    """Requests that are waiting, and where."""

    clerk: bool
    """A clerk reads the inbox."""
    inbox: int
    """Elements not yet taken."""
    inbox_oldest: _Seconds | None = None
    """Age of the oldest, by its own timestamp."""
    taken: int
    """Elements taken from the inbox but not yet recorded."""
    taken_oldest: _Seconds | None = None
    open: int
    """Requests that are received and not yet settled."""
    open_oldest: _Seconds | None = None
    """How long ago the oldest was received."""
    dead: int
    """How many dead letters there are."""


class AgentStatus(_Document):
    """One agent: its desired and its observed state."""

    agent: str
    """Its canonical address."""
    host: str
    session: str
    """The name of its tmux session."""
    desired: _Wanted | None = None
    """The desired state; null until an operator or a request sets it."""
    must_run: bool | None = None
    """It is started whenever it is not running."""
    observed: Observed
    """alive · ended (its program has ended) · none (no session) · foreign (a session of that name that
    gastown-mail did not start) · elsewhere (it lives on another host) · unknown (tmux does not answer)."""
    state: AgentState
    """What its screen and its processes show, as in docs/reference/contract.md#agent-states."""
    state_since: datetime | None = None
    """When this state was first seen."""
    state_age: _Seconds | None = None
    state_line: str | None = None
    """What shows that it asks, is limited, has a draft, has ended or is unknown: a line of the screen, after
    the exit status of a program that has ended, or a reason in words."""
    limited_until: datetime | None = None
    """When its usage limit ends."""
    context: int | None = None
    """How full its context is, in percent, if its program shows it."""
    program: str
    """The name of the profile by which its screen is read."""
    has_poke: bool
    """A line is typed into it when it is idle and due."""
    exit_status: int | None = None
    """The exit status of a program that has ended; 128 + the signal's number if a signal ended it."""
    since: datetime | None = None
    """When the live session started."""
    age: _Seconds | None = None
    active: datetime | None = None
    """The last activity in the live session; what a status line does is none."""
    idle: _Seconds | None = None
    """How long ago that was."""
    attached: int | None = None
    """How many clients are attached to the live session."""
    waits: Literal["back-off", "quarantine"] | None = None
    """Why it is not started now."""
    waits_until: datetime | None = None
    last_poke: datetime | None = None
    since_poke: _Seconds | None = None
    restarts: int | None = None
    """How often a session of it was started."""
    decision: str | None = None
    """What the last heartbeat decided about it; `explain` says more."""

    @property
    def is_down(self) -> bool:
        """True if it must run and certainly does not."""
        return bool(self.must_run) and self.observed in ("ended", "none", "foreign")

    @property
    def needs_person(self) -> bool:
        """True if its session is there, and it does not go on before a person does something."""
        if self.observed != "alive" or self.desired == "paused":
            return False
        stuck = {
            AgentState.ASKS: True,
            AgentState.ENDED: bool(self.must_run),
            AgentState.UNKNOWN: self.has_poke,
        }
        return stuck.get(self.state, False)


class Report(_Document):
    """Everything that `status` knows at one moment."""

    version: Literal[1] = 1
    """The version of this format."""
    town: str | None
    """Its name; null if town.toml cannot be read."""
    root: str
    asked: datetime
    """When the report was made; all ages are relative to it."""
    verdict: Literal["running", "degraded", "stopped"] = "running"
    """running: exit 0 · stopped: exit 3 · degraded: exit 4."""
    troubles: list[Problem] = []
    """Why it is degraded."""
    unknown: dict[Source, str] = {}
    """Which parts did not answer, and why; values that only they know are null."""
    paused: bool | None = None
    """An operator has paused the whole town."""
    rewound: datetime | None = None
    """When Redis was last found to have lost records: it had been emptied, or came back older."""
    replicas_missing: int = 0
    """How many replicas of Redis are missing for `min_replicas`; without them nothing is begun."""
    asks_after: _Seconds | None = None
    """An agent that needs a person for so long is a problem."""
    daemon: Daemon
    heartbeat: Heartbeat | None = None
    hosts: list[Host] | None = None
    mail: InboxStatus | None = None
    agents: list[AgentStatus] | None = None

    def decided_at(self, row: AgentStatus) -> datetime | None:
        """When the row's decision was made: at the last heartbeat, if that looked at this agent."""
        if not row.decision or row.observed == "elsewhere" or self.heartbeat is None:
            return None
        return self.heartbeat.last


class DesiredBy(_Document):
    """What the agent should be, and who decided that."""

    desired: _Wanted | None = None
    by: str
    since: datetime | None = None
    """When that was decided; null if it comes from the settings or is older than the events that are kept."""


class LastRequest(_Document):
    """The last request to the agent, and how it ended."""

    id: str
    action: str
    asked_by: str
    status: str
    received: datetime | None = None
    finished: datetime | None = None
    detail: str = ""


class Explanation(_Document):
    """Why the agent was or was not started or poked at the last heartbeat, and how it is now."""

    version: Literal[1] = 1
    asked: datetime
    """When the explanation was made; all ages are relative to it."""
    decision: str | None = None
    """What the last heartbeat that looked at the agent decided, in words."""
    decided: datetime | None = None
    """When that heartbeat was completed; null if it ran on another host, or is not known."""
    decided_ago: _Seconds | None = None
    now: AgentStatus
    """What should be, and what is."""
    wish: DesiredBy | None = None
    town_paused: bool | None = None
    daemon_runs: bool | None = None
    last_request: LastRequest | None = None
    next_steps: tuple[str, ...] = ()
    """What an operator can do."""
    unknown: dict[Source, str] = Field(default_factory=dict)
    """Which parts did not answer, and why."""


class CheckResult(_Document):
    """One result of a check of `doctor`; the text of a finding ends with its remedy."""

    check: str = ""
    """The name of the check."""
    verdict: Literal["ok", "finding", "not checked"]
    """`not checked`: it cannot be seen from here."""
    text: str


def ok(text: str) -> CheckResult:
    """A result without a fault."""
    return CheckResult(verdict="ok", text=text)


def finding(text: str) -> CheckResult:
    """A result with a fault; the text says what to do."""
    return CheckResult(verdict="finding", text=text)


def unchecked(text: str) -> CheckResult:
    """A result for what cannot be seen from here."""
    return CheckResult(verdict="not checked", text=text)


def known_time(at: datetime) -> datetime | None:
    """The time, or None for the zero time."""
    return None if at == ZERO_TIME else at


def age(at: datetime | None, now: datetime) -> float | None:
    """Seconds since then, never negative, because clocks differ a little; None for no time."""
    return None if at is None else round(max(0.0, (now - at).total_seconds()), 3)


def agent_status(
    agent: Agent,
    sessions: Snapshot | None,
    seen: Observation | None,
    record: AgentRecord | None,
    places: Places,
    *,
    now: datetime,
) -> AgentStatus:
    """What is known here about one agent.

    `sessions` are the live tmux sessions, and `seen` is what they show of the agent; both are None if
    tmux did not answer. `record` is None if Redis did not.
    """
    session = sessions.of(agent, places.sessions.town) if sessions else None
    host = places.believed_host(agent, record or AgentRecord())
    seen = seen or Observation(AgentState.UNKNOWN if host == places.host else AgentState.ELSEWHERE)
    if record is None:  # since when, and until when, only the record could tell
        seen = replace(seen, since=None, until=None)
    if seen.state is AgentState.ELSEWHERE:
        observed: Observed = "elsewhere"
    elif sessions is None or (session is None and seen.state is AgentState.UNKNOWN):
        observed = "unknown"
    elif session is None:
        observed = "none"
    elif not session.incarnation:
        observed = "foreign"
    else:
        observed = "ended" if session.dead else "alive"
    return AgentStatus(
        agent=agent.address, host=host, session=agent.session, observed=observed,
        program=agent.program, has_poke=bool(agent.poke), **_from_observation(seen, now),
        **({"desired": "unknown"} if record is None else _from_record(agent, record, now)),
        **(_from_session(session, seen, now) if session and observed == "alive" else {}),
        exit_status=session.exit_status if session and observed == "ended" else None,
    )  # fmt: skip


def _from_record(agent: Agent, record: AgentRecord, now: datetime) -> dict[str, Any]:
    history, last_poke = record.start_history, known_time(record.last_poke)
    waits = until = None
    if history.blocked_reason(now):
        waits = "quarantine" if now < history.quarantined_until else "back-off"
        until = history.quarantined_until if waits == "quarantine" else history.not_before
    return {
        "desired": record.desired.value if record.desired else None,
        "must_run": should_run(agent, record),
        "waits": waits,
        "waits_until": until,
        "last_poke": last_poke,
        "since_poke": age(last_poke, now),
        "restarts": record.restarts,
        "decision": record.decision or None,
    }


def _from_observation(seen: Observation, now: datetime) -> dict[str, Any]:
    return {
        "state": seen.state,
        "state_since": seen.since,
        "state_age": age(seen.since, now),
        "state_line": seen.line or None if seen.state in _TELLING else None,
        "limited_until": seen.until,
        "context": seen.context,
    }


def _from_session(session: Session, seen: Observation, now: datetime) -> dict[str, Any]:
    # tmux gives activity in whole seconds: without max it could be before the start
    since, active = session.started_at, max(seen.active or session.activity, session.started_at)
    return {
        "since": since,
        "age": age(since, now),
        "active": active,
        "idle": age(active, now),
        "attached": session.attached,
    }
