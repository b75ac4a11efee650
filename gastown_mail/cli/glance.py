"""The report of a town as text: the verdict, the remedies, each part, the agents. Pure."""

import textwrap
from collections.abc import Iterator

from gastown_mail.cli.output import strip_controls
from gastown_mail.cli.report import Daemon, Heartbeat, Host, InboxStatus, Report
from gastown_mail.cli.rows import format_clock, format_short, rows_table, summarize
from gastown_mail.cli.troubles import unreachable_parts

COLOURS = {"running": "green", "stopped": "yellow", "degraded": "red"}
UNKNOWN = "unknown"
PAUSED_HINT = "nobody is started, poked or ended; gastown-mail resume --all ends that"
WIDTH = 80
MARGIN = 12
"""Columns before what is said of each part."""


def format_report(report: Report) -> list[str]:
    """The report as lines for people; the first one is the verdict."""
    return [verdict(report), *_remedies(report), *_parts(report), *_agents(report)]


def verdict(report: Report) -> str:
    """The verdict with every reason, on one line."""
    reasons = "; ".join(trouble.reason for trouble in report.troubles)
    words = ": ".join(word for word in (report.town or report.root, report.verdict, reasons) if word)
    return strip_controls(words) + (" (the whole town is paused)" if report.paused else "")


def _remedies(report: Report) -> Iterator[str]:
    silent = () if report.troubles else unreachable_parts(report)
    for trouble in (*report.troubles, *silent):
        yield from wrapped(f"  ! {trouble.reason}: {trouble.remedy}", indent=4)
    if report.paused:
        yield from wrapped(f"  ! the whole town is paused: {PAUSED_HINT}", indent=4)


def _parts(report: Report) -> Iterator[str]:
    yield from _part("daemon", daemon_text(report))
    yield from _part("heartbeat", heartbeat_text(report.heartbeat))
    yield from _part("workers", hosts_text(report.hosts) or UNKNOWN)
    yield from _part("requests", mail_text(report.mail) or UNKNOWN)
    yield from _part("agents", UNKNOWN if report.agents is None else summarize(report.agents))


def _part(name: str, text: str) -> list[str]:
    return wrapped(f"  {name:<{MARGIN - 2}}{text}", indent=MARGIN)


def daemon_text(report: Report) -> str:
    """Which process, since when, and how old the state is when it does not come from Redis."""
    daemon: Daemon = report.daemon
    words = [f"pid {daemon.pid}" if daemon.pid else "its pid is not seen from here"]
    if not daemon.held:
        words = ["none, though its state says that it runs" if daemon.running else "none"]
    if daemon.since:
        words.append(f"since {format_clock(daemon.since)}")
    if daemon.state_from == "state.json" and daemon.state_age is not None:
        words.append(f"by state.json, written {format_short(daemon.state_age)} ago")
    return ", ".join(words)


def heartbeat_text(beat: Heartbeat | None) -> str:
    """How many, how long ago the last, and when the next one is due."""
    if beat is None:
        return UNKNOWN
    last = f"{format_clock(beat.last)} ({format_short(beat.age)} ago)" if beat.last else "none yet"
    words = [f"last {last}", f"{beat.count} since the start"]
    if beat.due_in is not None:
        words.append(f"next in {format_short(beat.due_in)}" if beat.due_in > 0 else "next due now")
    return ", ".join(words)


def hosts_text(hosts: list[Host] | None) -> str | None:
    """The workers that live, host by host."""
    return None if hosts is None else "; ".join(map(_host, hosts))


def _host(host: Host) -> str:
    of = f" of {host.expected}" if host.expected else ""
    return f"{host.host}: {host.lifecycle}{of} lifecycle, {host.heartbeat} heartbeat"


def mail_text(mail: InboxStatus | None) -> str | None:
    """What waits where, with the age of the oldest."""
    if mail is None:
        return None
    counts = (
        f"inbox {mail.inbox}{_oldest(mail.inbox_oldest)}",
        f"taken {mail.taken}{_oldest(mail.taken_oldest)}",
        f"open {mail.open}{_oldest(mail.open_oldest)}",
        f"dead letters {mail.dead}",
    )
    return ", ".join(counts) + ("" if mail.clerk else "; no clerk")


def _oldest(seconds: float | None) -> str:
    return "" if seconds is None else f" (oldest {format_short(seconds)})"


def _agents(report: Report) -> Iterator[str]:
    if report.agents:
        yield ""
        yield from rows_table(report.agents).splitlines()


def wrapped(text: str, *, indent: int) -> list[str]:
    """The text in lines of at most `WIDTH`, all but the first indented."""
    return textwrap.wrap(
        strip_controls(text), WIDTH, subsequent_indent=" " * indent, drop_whitespace=True,
        break_on_hyphens=False, replace_whitespace=False, break_long_words=False,
    )  # fmt: skip
