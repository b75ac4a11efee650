"""The documents of `status`, `agents`, `explain` and `doctor`, in version 1 of their format.

Times are RFC 3339 with a zone. Null means never, or not known: then `unknown` says why. A key may be added to
version 1; none is renamed or removed.
"""

from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.sessions.session import LAST_LINES

_Seconds = Annotated[float, Field(description="seconds")]
_Wanted = Literal["running", "stopped", "paused", "unknown"]
StateSource = Literal["redis", "state.json"]
Source = Literal["settings", "state", "redis", "tmux", "roster", "records", "schedule", "workers", "mail"]
Observed = Literal["alive", "ended", "none", "foreign", "elsewhere", "unknown"]
OBSERVED: tuple[Observed, ...] = get_args(Observed)


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
    """The pid of the lock holder; null if it is not visible here (another container or host)."""
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
    stalled: _Seconds | None = None
    """How long ago the clerk last accepted something, if elements wait and it makes no headway; else null."""


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
    """Why it is not started now; null if it runs, or need not run."""
    waits_until: datetime | None = None
    last_poke: datetime | None = None
    since_poke: _Seconds | None = None
    restarts: int | None = None
    """How often a session of it was started."""
    start_fault: str | None = None
    """Why its last start failed, and the remedy; null if it came up."""
    work_dir: str = ""
    damage: str | None = None
    """Why its record in Redis cannot be read; it is left alone until then."""
    decision: str | None = None
    """What the last heartbeat decided about it; `explain` says more."""

    @property
    def is_down(self) -> bool:
        """True if it must run and certainly does not."""
        return bool(self.must_run) and self.observed in ("ended", "none", "foreign")

    @property
    def fault_of_its_kind(self) -> str:
        """Why its last start failed, in words that are the same for all agents with that fault."""
        return general_fault(self.start_fault or "", self.agent, self.work_dir)

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
    suspended: bool | None = None
    """`rq suspend` has suspended all workers of this Redis."""
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


def general_fault(fault: str, address: str, work_dir: str) -> str:
    """The first line of a start's fault, without what only this agent has."""
    text = first_line(fault)
    if work_dir:
        text = text.replace(f"work dir {work_dir}", "work dir").replace(work_dir, "its work dir")
    return text.replace(f" for {address}", "").replace(f" of {address}", "")


def first_line(fault: str) -> str:
    """The first line of a start's fault, without what announces its program's last lines."""
    return fault.partition("\n")[0].removesuffix(LAST_LINES)


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
