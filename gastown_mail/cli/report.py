"""The documents of `status --json` and `agents --json`: their shape, version 1.

Times are RFC 3339 with a zone; what is null never was, or is not known: then `unknown` says why. A key may be
added to version 1; none is renamed or removed.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(description="seconds")]
Verdict = Literal["running", "degraded", "stopped"]
StateSource = Literal["redis", "state.json"]
Source = Literal["settings", "state", "redis", "tmux", "roster", "records", "schedule", "workers", "mail"]
Observed = Literal["alive", "ended", "none", "foreign", "elsewhere", "unknown"]
OBSERVED: tuple[Observed, ...] = ("alive", "ended", "none", "foreign", "elsewhere", "unknown")
Wanted = Literal["running", "stopped", "paused", "unknown"]


class StatusModel(BaseModel):
    """What all parts of a document share: they are frozen, and have no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Problem(StatusModel):
    """One reason why the town is degraded."""

    reason: str
    """What is wrong, in a few words."""
    remedy: str
    """What to do about it, or what was said instead of an answer."""


class Daemon(StatusModel):
    """The daemon, as the kernel and its own state tell of it."""

    held: bool
    """A living process holds the town's lock; asked of the kernel just now."""
    pid: int | None = None
    """The lock holder's, where it is seen from here; else the one in its state."""
    frozen: bool = False
    """Its process is stopped (SIGSTOP)."""
    running: bool | None = None
    """What the daemon says of itself."""
    since: datetime | None = None
    """When it started."""
    state_from: StateSource | None = None
    """Where what it says was read: Redis just now, or the file."""
    state_age: Seconds | None = None
    """How long ago the file was written; 0 when Redis was asked."""


class Heartbeat(StatusModel):
    """The heartbeats since the daemon's start."""

    count: int
    """Completed ones."""
    last: datetime | None = None
    age: Seconds | None = None
    """How long ago the last one was completed."""
    next: datetime | None = None
    """When the next one is due on this host."""
    due_in: Seconds | None = None
    """Until then; below zero when it is overdue."""
    interval: Seconds | None = None


class Host(StatusModel):
    """The rq workers that live on one host of the town."""

    host: str
    here: bool
    """This is the host on which it was asked."""
    lifecycle: int
    """Workers that carry out requests, start and poke."""
    expected: int | None = None
    """How many of them there should be; only known here."""
    heartbeat: int
    """Workers that run the heartbeat."""


class InboxStatus(StatusModel):
    """What was asked for and where it is."""

    clerk: bool
    """Somebody reads the inbox."""
    inbox: int
    """Elements that nobody has taken yet."""
    inbox_oldest: Seconds | None = None
    """Age of the oldest, by its own timestamp."""
    taken: int
    """Elements in the clerk's hands."""
    taken_oldest: Seconds | None = None
    open: int
    """Requests that were received and have no end yet."""
    open_oldest: Seconds | None = None
    """How long ago the oldest was received."""
    dead: int
    """Dead letters."""


class AgentStatus(StatusModel):
    """One agent: what should be, and what is."""

    agent: str
    """Its canonical address."""
    host: str
    session: str
    """The name of its tmux session."""
    desired: Wanted | None = None
    """What should be; null as long as nobody has said."""
    must_run: bool | None = None
    """It is started again whenever it does not run."""
    observed: Observed
    """alive · ended (its program has) · none (no session) · foreign (a session of its name, but not ours) ·
    elsewhere (it lives on another host) · unknown (tmux does not answer)."""
    since: datetime | None = None
    """When the living session started."""
    age: Seconds | None = None
    active: datetime | None = None
    """The living session's last output or input."""
    idle: Seconds | None = None
    """How long ago that was."""
    attached: int | None = None
    """How many look at the living session."""
    waits: Literal["back-off", "quarantine"] | None = None
    """Why it is not started now."""
    waits_until: datetime | None = None
    last_poke: datetime | None = None
    since_poke: Seconds | None = None
    restarts: int | None = None
    """How often a session of it was started."""
    decision: str | None = None
    """What was decided about it at the last heartbeat, not now; `explain` says more."""


class Report(StatusModel):
    """Everything that `status` knows at one moment."""

    version: Literal[1] = 1
    """Of this shape."""
    town: str | None
    """Its name; null when town.toml cannot be read."""
    root: str
    asked: datetime
    """When; every age counts from here."""
    verdict: Verdict = "running"
    """running: exit 0 · stopped: exit 3 · degraded: exit 4."""
    troubles: list[Problem] = []
    """Why it is degraded."""
    unknown: dict[Source, str] = {}
    """Which parts did not answer, and why; what they would have told is null."""
    paused: bool | None = None
    """An operator has paused the whole town."""
    daemon: Daemon
    heartbeat: Heartbeat | None = None
    hosts: list[Host] | None = None
    mail: InboxStatus | None = None
    agents: list[AgentStatus] | None = None
