"""One row for each agent, as data and as a table: what should be, and what is. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from gastown_mail.cli.output import table
from gastown_mail.cli.report import OBSERVED, AgentStatus, Observed
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME, format_duration
from gastown_mail.lifecycle.heartbeat_policy import should_run
from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import StartHistory
from gastown_mail.town.records import AgentRecord

Sessions = Mapping[str, Session] | None
"""The living tmux sessions by name; None when tmux did not answer."""

HEADINGS = ("AGENT", "DESIRED", "OBSERVED", "AGE", "IDLE", "NOTE")
REMARKS: Mapping[Observed, str] = MappingProxyType(
    {"elsewhere": "lives on {host}", "foreign": "not ours; adopt it", "ended": "its program has ended"}
)
DOWN = frozenset({"ended", "none", "foreign"})


def agent_status(
    agent: Agent, sessions: Sessions, record: AgentRecord | None, *, host: str, now: datetime
) -> AgentStatus:
    """What is known of one agent at `now` on `host`. `record` is None when Redis did not answer."""
    observed = observe(agent, sessions, host)
    session = sessions.get(agent.session) if sessions and observed == "alive" else None
    return AgentStatus(
        agent=agent.address, host=agent.host, session=agent.session, observed=observed,
        **_recorded(agent, record, now), **_living(session, now),
    )  # fmt: skip


def observe(agent: Agent, sessions: Sessions, host: str) -> Observed:
    """What is to be seen of the agent from `host`."""
    if agent.host != host:
        return "elsewhere"
    if sessions is None:
        return "unknown"
    session = sessions.get(agent.session)
    if session is None:
        return "none"
    if not session.incarnation:
        return "foreign"
    return "ended" if session.dead else "alive"


def _recorded(agent: Agent, record: AgentRecord | None, now: datetime) -> dict[str, Any]:
    if record is None:
        return {"desired": "unknown"}
    waits, until = blocking_backoff(record.gate, now)
    poked = moment(record.last_poke)
    return {
        "desired": record.desired.value if record.desired else None,
        "must_run": should_run(agent, record),
        "waits": waits,
        "waits_until": until,
        "last_poke": poked,
        "since_poke": age(poked, now) if poked else None,
        "restarts": record.restarts,
        "decision": record.decision or None,
    }


def blocking_backoff(gate: StartHistory, now: datetime) -> tuple[str | None, datetime | None]:
    """Which wait keeps the agent from being started, and until when."""
    epoch = now.timestamp()
    if gate.blocked_reason(epoch) is None:
        return None, None
    quarantined = epoch < gate.quarantined_until
    until = gate.quarantined_until if quarantined else gate.not_before
    return ("quarantine" if quarantined else "back-off"), datetime.fromtimestamp(until, UTC)


def _living(session: Session | None, now: datetime) -> dict[str, Any]:
    if session is None:
        return {}
    # tmux tells activity in whole seconds: without max it could be before the start
    started, active = session.started_at, max(session.activity, session.started_at)
    since, last = datetime.fromtimestamp(started, UTC), datetime.fromtimestamp(active, UTC)
    return {
        "since": since, "age": age(since, now), "active": last, "idle": age(last, now),
        "attached": session.attached,
    }  # fmt: skip


def moment(at: datetime) -> datetime | None:
    """A time, None for one that never was."""
    return None if at == ZERO_TIME else at


def age(at: datetime, now: datetime) -> float:
    """Seconds since then; clocks that differ a little make no time negative."""
    return round(max(0.0, (now - at).total_seconds()), 3)


def is_down(row: AgentStatus) -> bool:
    """It must run, and certainly does not."""
    return bool(row.must_run) and row.observed in DOWN


def rows_table(rows: Iterable[AgentStatus]) -> str:
    """The rows in columns, those that are down first."""
    ordered = sorted(rows, key=lambda row: not is_down(row))
    return table(HEADINGS, [_cells(row) for row in ordered])


def _cells(row: AgentStatus) -> Sequence[str]:
    return (row.agent, _desired(row), row.observed, format_short(row.age), format_short(row.idle), note(row))


def _desired(row: AgentStatus) -> str:
    return "must run" if row.must_run else row.desired or "-"


def note(row: AgentStatus) -> str:
    """What to know of it besides, as it is now: what was decided at some heartbeat is left to `explain`."""
    may_start = row.observed != "alive" and row.desired not in ("stopped", "paused")
    if may_start and row.waits and row.waits_until:
        return f"{row.waits} until {format_clock(row.waits_until)}"
    if row.observed in REMARKS:
        return REMARKS[row.observed].format(host=row.host)
    if row.attached:
        return "a person is attached"
    if row.since_poke is None or row.age is None or row.since_poke > row.age:
        return "-"
    return f"poked {format_short(row.since_poke)} ago"


def format_short(seconds: float | None) -> str:
    """A duration as people say it, `-` when there is none; from an hour on without seconds."""
    if seconds is None:
        return "-"
    return format_duration(seconds // 60 * 60 if seconds >= 3600 else int(seconds))


def format_clock(at: datetime) -> str:
    """A time of today without its day, any other with it; in the zone of this machine."""
    local = at.astimezone()
    today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def summarize(rows: Iterable[AgentStatus]) -> str:
    """How many agents are what, and how many should be."""
    rows = list(rows)
    seen = Counter(row.observed for row in rows)
    wanted = Counter(_desired(row) for row in rows)
    what = ", ".join(f"{seen[word]} {word}" for word in OBSERVED if seen[word])
    should = ", ".join(f"{count} {word}" for word, count in sorted(wanted.items()) if word != "-")
    return f"{len(rows)}: {what or 'none'}" + (f"; desired: {should}" if should else "")
