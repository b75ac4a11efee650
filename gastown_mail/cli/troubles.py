"""What degrades a town, and what to do about each: judged from what was seen. Pure."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from gastown_mail.cli.report import AgentStatus, Daemon, Heartbeat, Host, Problem, Report, Source
from gastown_mail.cli.rows import age, format_short, is_down

LATE_AFTER = 2.0
"""A heartbeat that is later than this many intervals degrades the town."""

SCHEDULE_GRACE = 10.0
"""Seconds after which what is due and was not put on its queue means that no scheduler works."""

NAMED = 3
"""So many agents are named in one reason, more are counted."""

SILENT: Mapping[Source, str] = MappingProxyType(
    {
        "settings": "town.toml is broken",
        "state": "the state cannot be read",
        "redis": "Redis does not answer",
        "tmux": "tmux does not answer",
        "roster": "the agents are not known",
        "records": "the agents' records cannot be read",
        "schedule": "the schedule cannot be read",
        "workers": "the workers cannot be read",
        "mail": "the inbox cannot be read",
    }
)
RESTART = "gastown-mail restart begins anew; the agents go on meanwhile"
LOGS = "gastown-mail logs says why"


def with_verdict(report: Report) -> Report:
    """The report with its verdict, and the troubles that a degraded town has."""
    daemon = report.daemon
    if not daemon.held and daemon.running is False:
        return report.model_copy(update={"verdict": "stopped"})
    troubles = list(_troubles(report))
    return report.model_copy(update={"verdict": "degraded" if troubles else "running", "troubles": troubles})


def _troubles(report: Report) -> Iterator[Problem]:
    yield from _of_daemon(report.daemon)
    yield from unreachable_parts(report)
    if report.heartbeat:
        yield from _of_heartbeat(report)
    yield from missing_workers(report)
    yield from _of_agents(report.agents or ())


def missing_workers(report: Report) -> list[Problem]:
    """Which work of the daemon nobody does: clerk, workers, schedule."""
    found = [trouble for host in report.hosts or () for trouble in _of_host(host)]
    if report.mail and not report.mail.clerk:
        found.append(Problem(reason="no clerk reads the inbox", remedy=f"{LOGS}; {RESTART}"))
    return [*found, *_of_schedule(report)]


def unreachable_parts(report: Report) -> list[Problem]:
    """What did not answer, and why."""
    return [Problem(reason=SILENT[part], remedy=why) for part, why in report.unknown.items()]


def _of_daemon(daemon: Daemon) -> Iterator[Problem]:
    if not daemon.held:
        yield Problem(
            reason="no daemon holds the town", remedy=f"it was killed, or runs elsewhere; {RESTART}"
        )
    elif daemon.frozen:
        yield Problem(reason="the daemon stands still", remedy=f"kill -CONT {daemon.pid} lets it go on")
    elif daemon.running is False:
        yield Problem(reason="the daemon is starting or stopping", remedy="look again in a moment")


def _of_heartbeat(report: Report) -> Iterator[Problem]:
    beat = report.heartbeat
    assert beat is not None
    late = _silence(report, beat)
    if late is not None and beat.interval and late >= LATE_AFTER * beat.interval:
        yield Problem(reason=f"the last heartbeat was {format_short(late)} ago" if beat.last
                      else f"no heartbeat since the start {format_short(late)} ago", remedy=LOGS)  # fmt: skip


def _of_schedule(report: Report) -> Iterator[Problem]:
    beat = report.heartbeat
    if beat is None or {"redis", "schedule", "settings"} & set(report.unknown):
        return
    if beat.due_in is None:
        yield Problem(reason="the heartbeat is not on the schedule", remedy=RESTART)
    elif beat.due_in < -SCHEDULE_GRACE:
        overdue = f"the heartbeat is overdue since {format_short(-beat.due_in)}"
        yield Problem(reason=overdue, remedy=f"no scheduler works; {LOGS}; {RESTART}")


def _silence(report: Report, beat: Heartbeat) -> float | None:
    """Seconds since the last heartbeat of this daemon, or since its start when there was none."""
    since = report.daemon.since
    started = age(since, report.asked) if since else None
    ages = [seconds for seconds in (beat.age, started) if seconds is not None]
    return min(ages, default=None)


def _of_host(host: Host) -> Iterator[Problem]:
    remedy = f"{LOGS}; {RESTART}" if host.here else f"see to worker.py on {host.host}"
    if host.lifecycle < (host.expected or 1):
        reason = f"{_count(host)} on {host.host}"
        yield Problem(reason=reason, remedy=remedy)
    if not host.heartbeat:
        yield Problem(reason=f"no heartbeat worker on {host.host}", remedy=remedy)


def _count(host: Host) -> str:
    if not host.lifecycle:
        return "no lifecycle worker"
    return f"{host.lifecycle} of {host.expected} lifecycle workers"


def _of_agents(rows: list[AgentStatus] | tuple[()]) -> Iterator[Problem]:
    down = [row for row in rows if is_down(row)]
    if not down:
        return
    names = ", ".join(row.agent for row in down[:NAMED])
    more = f" and {len(down) - NAMED} more" if len(down) > NAMED else ""
    must = "must run and does not" if len(down) == 1 else "must run and do not"
    yield Problem(reason=f"{names}{more} {must}", remedy=f"gastown-mail explain {down[0].agent} says why")
