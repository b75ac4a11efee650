"""What is wrong with a town, and what to do about it, judged from its report alone. Pure.

`status`, `explain`, `doctor` and `start` all show these problems, in these words.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from gastown_mail.contracts.go_formats import format_duration
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.status.model import AgentStatus, Host, Problem, Report, Source, age, first_line
from gastown_mail.town.hosts import LIVE_SECONDS

_LATE_AFTER = 2.0
"""The town is degraded if the last heartbeat is older than this many intervals."""

_REWOUND_SHOWN = 24 * 3600.0
"""For how many seconds it is said that Redis has lost records."""

_SCHEDULE_GRACE = 10.0
"""Seconds after which a due job that is not on its queue means that no scheduler is working."""

_MAX_NAMED = 3
"""How many agents one sentence names; the others are counted."""

_NEEDS: Mapping[AgentState, str] = MappingProxyType(
    {
        AgentState.ASKS: "has been asking",
        AgentState.ENDED: "must run and has not worked",
        AgentState.UNKNOWN: "has shown a screen without a known meaning",
    }
)
"""What is wrong with an agent that needs a person, before the words for how long."""

_LINE_LENGTH = 80
"""How many characters of a line of a screen a problem quotes."""

_UNREACHABLE: Mapping[Source, tuple[str, str]] = MappingProxyType(
    {
        "settings": ("folder", "town.toml is broken"),
        "state": ("folder", "the state cannot be read"),
        "redis": ("redis", "Redis does not answer"),
        "tmux": ("tmux server", "tmux does not answer"),
        "roster": ("agents", "the agents are not known"),
        "records": ("agents", "the agents' records cannot be read"),
        "schedule": ("daemon", "the schedule cannot be read"),
        "workers": ("daemon", "the workers cannot be read"),
        "mail": ("daemon", "the inbox cannot be read"),
    }
)
"""What it means that a part does not answer, and which check of `doctor` shows it."""

_RESTART = "gastown-mail restart restarts the daemon; agents keep running"
_LOGS = "gastown-mail logs says why"
_STOPPED = Problem(reason="the daemon does not run", remedy="gastown-mail up or start runs it")
_SUSPENDED = Problem(
    reason="rq's workers are suspended (rq suspend)",
    remedy="nothing is carried out, started or poked; rq resume ends that (RQ_REDIS_URL names this Redis)",
)
_PAUSED = Problem(
    reason="the whole town is paused",
    remedy="no agent is started, poked or ended; gastown-mail resume --all ends the pause",
)


def with_verdict(report: Report) -> Report:
    """The report with its verdict and, if the town is degraded, the reasons."""
    if _is_stopped(report):
        return report.model_copy(update={"verdict": "stopped"})
    remarks = [_PAUSED, *_rewound(report)]
    troubles = [problem for _, problem in all_problems(report) if problem not in remarks]
    return report.model_copy(update={"verdict": "degraded" if troubles else "running", "troubles": troubles})


def all_problems(report: Report) -> list[tuple[str, Problem]]:
    """Everything that is wrong, each with the check of `doctor` that shows it."""
    problems = [("daemon", problem) for problem in blocking_problems(report)]
    for part, why in report.unknown.items():
        check, reason = _UNREACHABLE[part]
        problems.append((check, Problem(reason=reason, remedy=why)))
    problems += [("redis", problem) for problem in [*_missing_replicas(report), *_rewound(report)]]
    if not _is_stopped(report):
        about = (*_damaged(report), *_down(report), *_waiting_for_person(report))
        problems += [("agents", problem) for problem in about]
    return problems


def _damaged(report: Report) -> Iterator[Problem]:
    for row in report.agents or ():
        if row.damage:
            what, _, remedy = row.damage.partition("; ")
            yield Problem(reason=f"{row.agent} is left alone: {what}", remedy=remedy)


def _down(report: Report) -> Iterator[Problem]:
    """The agents that must run and do not, those with the same fault together."""
    groups: dict[str, list[AgentStatus]] = {}
    for row in report.agents or ():
        if row.is_down:
            groups.setdefault(row.fault_of_its_kind, []).append(row)
    for fault, rows in groups.items():
        must = "must run and do not" if len(rows) > 1 else "must run and does not"
        text = fault if len(rows) > 1 else first_line(rows[0].start_fault or "")
        what, _, remedy = text.partition("; ")
        yield Problem(
            reason=f"{name_some([row.agent for row in rows])} {must}" + (f": {what}" if what else ""),
            remedy=remedy or f"gastown-mail explain {rows[0].agent} says why",
        )


def _missing_replicas(report: Report) -> Iterator[Problem]:
    if missing := report.replicas_missing:
        what = "a replica of Redis is missing" if missing == 1 else f"{missing} replicas of Redis are missing"
        remedy = "nothing is accepted or begun until as many are connected as min_replicas asks for"
        yield Problem(reason=what, remedy=remedy)


def _rewound(report: Report) -> list[Problem]:
    since = age(report.rewound, report.asked)
    if since is None or since > _REWOUND_SHOWN:
        return []
    reason = f"Redis came back empty or older {format_short(since)} ago"
    remedy = "wishes and sessions were restored; the receipt of a request that is gone says lost"
    return [Problem(reason=reason, remedy=remedy)]


def blocking_problems(report: Report) -> list[Problem]:
    """What keeps the daemon from starting, poking and ending agents, a pause of the town included."""
    pauses = [*([_SUSPENDED] if report.suspended else []), *([_PAUSED] if report.paused else [])]
    if _is_stopped(report):
        return [_STOPPED, *pauses]
    return [*_daemon_problems(report), *missing_workers(report), *pauses]


def person_step(row: AgentStatus) -> str:
    """What a person does about an agent with a session that does not go on by itself; "" for other states."""
    look = f"gastown-mail attach {row.agent}"
    match row.state:
        case AgentState.ASKS:
            return f"{look} and answer; no poke is typed until then"
        case AgentState.DRAFT:
            return f"{look} and press Enter or clear the line; no poke is typed until then"
        case AgentState.ENDED:
            restart = f"gastown-mail send restart --agent operator --to {row.agent}"
            return f"{look} shows what is left of it, {restart} starts it anew"
        case AgentState.UNKNOWN:
            reads = f"gastown-mail programs {row.program} tells how its screen is read"
            return f"{look} shows it; {reads}, and program in town.toml chooses another profile"
    return ""


def unreachable(part: Source) -> str:
    """What it means that this part does not answer, in words."""
    return _UNREACHABLE[part][1]


def missing_workers(report: Report) -> list[Problem]:
    """Which of the workers, the clerk and the scheduler should be working and are not."""
    problems = []
    for host in report.hosts or ():
        if is_gone(host, report.asked):
            problems.append(_gone(host, report))
            continue
        remedy = f"{_LOGS}; {_RESTART}" if host.here else f"check worker.py on {host.host}"
        if host.lifecycle < (host.expected or 1):
            count = f"{host.lifecycle} of {host.expected} lifecycle workers"
            reason = f"{count if host.lifecycle else 'no lifecycle worker'} on {host.host}"
            problems.append(Problem(reason=reason, remedy=remedy))
        if not host.heartbeat:
            problems.append(Problem(reason=f"no heartbeat worker on {host.host}", remedy=remedy))
    if report.mail and not report.mail.clerk:
        problems.append(Problem(reason="no clerk reads the inbox", remedy=f"{_LOGS}; {_RESTART}"))
    if report.mail and report.mail.stalled is not None:
        reason = f"elements wait, and the clerk has accepted nothing for {format_short(report.mail.stalled)}"
        problems.append(Problem(reason=reason, remedy=f"{_LOGS}; {_RESTART}"))
    beat = report.heartbeat
    if beat and not {"redis", "schedule", "settings"} & set(report.unknown):
        if beat.due_in is None:
            problems.append(Problem(reason="the heartbeat is not on the schedule", remedy=_RESTART))
        elif beat.due_in < -_SCHEDULE_GRACE:
            overdue = f"the heartbeat is overdue by {format_short(-beat.due_in)}"
            problems.append(Problem(reason=overdue, remedy=f"no scheduler is working; {_LOGS}; {_RESTART}"))
    return problems


def is_gone(host: Host, now: datetime) -> bool:
    """Whether another host that agents are believed to live on shows no sign of life."""
    silent = age(host.seen, now)
    works = host.lifecycle or host.heartbeat
    return bool(host.agents) and not host.here and not works and (silent is None or silent > LIVE_SECONDS)


def _gone(host: Host, report: Report) -> Problem:
    since = f" for {format_short(age(host.seen, report.asked))}" if host.seen else ""
    move = f"gastown-mail move {host.agents[0]} HOST --from-dead"
    return Problem(
        reason=f"host {host.host} has been silent{since}, and {name_some(host.agents)} may live there",
        remedy=f"start its daemon; if that machine is lost for good, {move} starts the agent on another host",
    )


def _waiting_for_person(report: Report) -> Iterator[Problem]:
    """The agents that have needed a person for too long; the longest first."""
    least = math.inf if report.asks_after is None else report.asks_after
    ages = {row.agent: row.state_age for row in report.agents or () if row.needs_person}
    late = {agent: waited for agent, waited in ages.items() if waited is not None and waited >= least}
    rows = sorted(
        (row for row in report.agents or () if row.agent in late),
        key=lambda row: late[row.agent],
        reverse=True,
    )
    for row in rows[:_MAX_NAMED]:
        reason = f"{row.agent} {_NEEDS[row.state]} for {format_short(row.state_age)}{_quoted(row)}"
        yield Problem(reason=reason, remedy=person_step(row))
    if more := rows[_MAX_NAMED:]:
        reason = f"{name_some([row.agent for row in more])} need a person too"
        yield Problem(reason=reason, remedy="gastown-mail agents lists them first, each with the reason")


def _quoted(row: AgentStatus) -> str:
    line = row.state_line or ""
    return f": {line[:_LINE_LENGTH]}{'…' if len(line) > _LINE_LENGTH else ''}" if line else ""


def name_some(addresses: Sequence[str]) -> str:
    """The first few of the addresses, and how many more there are."""
    more = f" and {len(addresses) - _MAX_NAMED} more" if len(addresses) > _MAX_NAMED else ""
    return ", ".join(addresses[:_MAX_NAMED]) + more


def format_short(seconds: float | None) -> str:
    """A duration such as `1h2m`, without seconds from an hour on; `-` for none."""
    if seconds is None:
        return "-"
    return format_duration(seconds // 60 * 60 if seconds >= 3600 else int(seconds))


def _is_stopped(report: Report) -> bool:
    return not report.daemon.held and report.daemon.running is False


def _daemon_problems(report: Report) -> Iterator[Problem]:
    daemon, beat = report.daemon, report.heartbeat
    if not daemon.held:
        yield Problem(
            reason="no daemon holds the town", remedy=f"it was killed, or runs elsewhere; {_RESTART}"
        )
    elif daemon.frozen:
        yield Problem(reason="the daemon is suspended", remedy=f"kill -CONT {daemon.pid} resumes it")
    elif daemon.running is False:
        yield Problem(reason="the daemon is starting or stopping", remedy="look again in a moment")
    if beat is None or not beat.interval:
        return
    # The last heartbeat may be an earlier daemon's.
    ages = [seconds for seconds in (beat.age, age(daemon.since, report.asked)) if seconds is not None]
    late = min(ages, default=0.0)
    if late >= _LATE_AFTER * beat.interval:
        last = f"the last heartbeat was {format_short(late)} ago"
        none = f"no heartbeat since the start {format_short(late)} ago"
        yield Problem(reason=last if beat.last else none, remedy=_LOGS)
