"""`status`, `agents` and `explain`: the state of the town and of each agent, and the reasons."""

import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from gastown_mail.cli.options import (
    agent_option,
    complete_agents,
    find_root,
    json_option,
    load,
    town_option,
)
from gastown_mail.cli.output import print_json, strip_controls, table
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.status.collect import StatusCollector, collect_report
from gastown_mail.status.explain import explain_agent
from gastown_mail.status.health import all_problems, format_short
from gastown_mail.status.model import (
    OBSERVED,
    AgentStatus,
    Daemon,
    Explanation,
    Heartbeat,
    InboxStatus,
    Report,
)

EXIT_CODES = {"running": 0, "stopped": 3, "degraded": 4}
_COLOURS = {"running": "green", "stopped": "yellow", "degraded": "red"}
_STATES = (*OBSERVED, *(state.value for state in AgentState if state not in OBSERVED))
_UNKNOWN = "unknown"
_WIDTH = 80
_ENTER, _HOME, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[H\x1b[J", "\x1b[?25h\x1b[?1049l"
"""Terminal codes: open a second screen without a cursor, go to its top, return to the first one."""


@click.command()
@town_option
@json_option
@click.option("-w", "--watch", is_flag=True, help="Refresh until Ctrl-C (exit code 130).")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS",
    help="With --watch: the pause between two reports.",
)  # fmt: skip
def status(as_json: bool, watch: bool, interval: float) -> int:
    """Show whether the daemon serves the town: exit 0 running, 3 stopped, 4 degraded."""
    if watch and as_json:
        raise click.UsageError("use --watch or --json, not both")
    root = find_root()
    if watch:
        _watch(root, interval)
    report = collect_report(root)
    first, *rest = format_report(report)
    click.echo(report.model_dump_json(indent=2) if as_json else "\n".join((_coloured(first, report), *rest)))
    return EXIT_CODES[report.verdict]


@click.command()
@town_option
@json_option
@agent_option
@click.option(
    "--status", "state", type=click.Choice(_STATES), help="Show only agents in this observed state."
)
def agents(as_json: bool, agent: str | None, state: str | None) -> None:
    """List the agents with their desired and observed states."""
    collector = StatusCollector(load())
    roster = collector.town.roster()
    only = roster.pick(agent).address if agent else None
    rows = [
        row for row in collector.agents(roster)
        if only in (None, row.agent) and state in (None, row.observed, row.state)
    ]  # fmt: skip
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
    elif rows:
        click.echo(format_agents(rows))
    else:
        click.echo("no such agents" if agent or state else "the town has no agents")
    if collector.failure:
        raise collector.failure


@click.command()
@town_option
@json_option
@click.argument("agent", shell_complete=complete_agents)
def explain(as_json: bool, agent: str) -> None:
    """Explain why AGENT was or was not started or poked at the last heartbeat, and what you can do."""
    collector = StatusCollector(load())
    explanation = explain_agent(collector, collector.town.roster().pick(agent))
    words = "\n".join(format_explanation(explanation))
    click.echo(explanation.model_dump_json(indent=2) if as_json else words)
    if collector.failure:
        raise collector.failure


def _watch(root: Path, interval: float) -> NoReturn:
    """Show the report again and again: in place on a terminal, one below the other elsewhere."""
    # SIGTERM as an exception, like Ctrl-C: `finally` then restores the terminal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    try:
        click.echo(_ENTER if in_place else "", nl=False)
        while True:
            report = collect_report(root)
            first, *rest = format_report(report)
            lines = [first, f"  as of {_clock(report.asked)}; Ctrl-C ends", *rest]
            click.echo(_HOME + _fitted(lines, report) if in_place else "\n".join(lines) + "\n\n", nl=False)
            time.sleep(interval)
    finally:
        click.echo(_LEAVE if in_place else "", nl=False)


def _fitted(lines: Sequence[str], report: Report) -> str:
    """The lines that fit on the terminal: long ones are wrapped, those below the last row left out."""
    # COLUMNS and LINES, where they are set, do not follow a resized window
    size = os.get_terminal_size(sys.stdout.fileno())
    columns, rows = size.columns or 80, size.lines or 24
    folded = [[line[at : at + columns] for at in range(0, len(line), columns)] or [""] for line in lines]
    verdict = len(folded[0])
    pieces = [piece for line in folded for piece in line]
    if len(pieces) > rows:
        pieces[rows - 1 :] = ["…"]
    return "\n".join(_coloured(piece, report) if at < verdict else piece for at, piece in enumerate(pieces))


def _coloured(line: str, report: Report) -> str:
    """The line in the colour of the verdict, on terminals that show colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return line
    return click.style(line, fg=_COLOURS[report.verdict], bold=True)


def format_report(report: Report) -> list[str]:
    """The report as lines: the verdict with every reason, what to do, each part, the agents."""
    reasons = "; ".join(problem.reason for problem in report.troubles)
    verdict = ": ".join(word for word in (report.town or report.root, report.verdict, reasons) if word)
    problems = [f"  ! {problem.reason}: {problem.remedy}" for _, problem in all_problems(report)]
    workers = [
        f"{host.host}: {host.lifecycle}{f' of {host.expected}' if host.expected else ''} lifecycle, "
        f"{host.heartbeat} heartbeat"
        for host in report.hosts or ()
    ]
    parts = {
        "daemon": _daemon_text(report.daemon),
        "heartbeat": _heartbeat_text(report.heartbeat) if report.heartbeat else _UNKNOWN,
        "workers": "; ".join(workers) or _UNKNOWN,
        "requests": _inbox_text(report.mail) if report.mail else _UNKNOWN,
        "agents": _UNKNOWN if report.agents is None else summarize(report.agents),
    }
    return [
        strip_controls(verdict) + (" (the whole town is paused)" if report.paused else ""),
        *_wrapped(problems, indent=4),
        *_columns(parts, margin=12),
        *(["", *format_agents(report.agents).splitlines()] if report.agents else []),
    ]


def _daemon_text(daemon: Daemon) -> str:
    words = [f"pid {daemon.pid}" if daemon.pid else "its pid is not visible here"]
    if not daemon.held:
        words = ["none, although its state says that it is running" if daemon.running else "none"]
    if daemon.since:
        words.append(f"since {_clock(daemon.since)}")
    if daemon.state_from == "state.json" and daemon.state_age is not None:
        words.append(f"by state.json, written {format_short(daemon.state_age)} ago")
    return ", ".join(words)


def _heartbeat_text(beat: Heartbeat) -> str:
    last = f"{_clock(beat.last)} ({format_short(beat.age)} ago)" if beat.last else "none yet"
    words = [f"last {last}", f"{beat.count} since the start"]
    if beat.due_in is not None:
        words.append(f"next in {format_short(beat.due_in)}" if beat.due_in > 0 else "next due now")
    return ", ".join(words)


def _inbox_text(mail: InboxStatus) -> str:
    counts = {
        "inbox": (mail.inbox, mail.inbox_oldest),
        "taken": (mail.taken, mail.taken_oldest),
        "open": (mail.open, mail.open_oldest),
        "dead letters": (mail.dead, None),
    }
    words = [
        f"{name} {count}" + ("" if oldest is None else f" (oldest {format_short(oldest)})")
        for name, (count, oldest) in counts.items()
    ]
    return ", ".join(words) + ("" if mail.clerk else "; no clerk")


def format_agents(rows: Iterable[AgentStatus]) -> str:
    """The agents as a table, at the top those that are down, then those that need a person."""
    cells = [
        (row.agent, _desired(row), _state(row), format_short(row.age), format_short(row.idle), note(row))
        for row in sorted(rows, key=lambda row: (not row.is_down, not row.needs_person))
    ]
    return table(("AGENT", "DESIRED", "STATE", "AGE", "IDLE", "NOTE"), cells, cut=True)


def _desired(row: AgentStatus) -> str:
    return "must run" if row.must_run else row.desired or "-"


def _state(row: AgentStatus) -> str:
    if row.state_age is None:
        return row.state
    minutes = row.state_age // 60 * 60
    return f"{row.state} {format_short(minutes or row.state_age)}"


def note(row: AgentStatus) -> str:
    """What else matters about the agent now; `explain` says what the last heartbeat decided."""
    poked = row.since_poke is not None and row.age is not None and row.since_poke <= row.age
    remarks = {
        f"{row.waits} until {_clock(row.waits_until)}": row.waits,
        "its record in Redis is damaged": row.damage,
        f"not started: {row.fault_of_its_kind}": row.is_down and row.start_fault,
        "a person is attached": row.attached,
        f"until {_clock(row.limited_until)}": row.limited_until,
        _line(row): True,
        f"poked {format_short(row.since_poke)} ago": poked and not row.state_line,
        f"context {row.context} %": row.context is not None,
    }
    return ", ".join(remark for remark, holds in remarks.items() if remark and holds) or "-"


def _line(row: AgentStatus) -> str:
    """What shows the state of the agent, in words."""
    remarks = {"elsewhere": f"lives on {row.host}", "foreign": "not managed; adopt it"}
    return remarks.get(row.observed) or row.state_line or ""


def summarize(rows: Sequence[AgentStatus]) -> str:
    """How many agents there are in each observed and in each desired state."""
    observed = Counter(row.state for row in rows)
    desired = Counter(_desired(row) for row in rows)
    what = ", ".join(f"{observed[state]} {state}" for state in AgentState if observed[state])
    should = ", ".join(f"{count} {word}" for word, count in sorted(desired.items()) if word != "-")
    return f"{len(rows)}: {what or 'none'}" + (f"; desired: {should}" if should else "")


def format_explanation(explanation: Explanation) -> list[str]:
    """The explanation as lines: the decision, what does not answer, each part, the next steps."""
    row, wish, request = explanation.now, explanation.wish, explanation.last_request
    back_off = desired = paused = _UNKNOWN
    if row.desired != "unknown":
        back_off = f"{row.waits} until {_clock(row.waits_until)}" if row.waits else "none"
    if wish:
        desired = f"{wish.desired or ('running' if row.must_run else 'nothing')}, by {wish.by}"
        desired += f", since {_clock(wish.since)}" if wish.since else ""
        desired += "; it is started whenever it is not running" if row.must_run else ""
    if explanation.town_paused is not None:
        paused = "paused: no agent is started or poked" if explanation.town_paused else "not paused"
    last = _UNKNOWN if explanation.unknown else "none that is still known"
    if request:
        finished = f" at {_clock(request.finished)}" if request.finished else ""
        detail = f": {request.detail}" if request.detail else ""
        last = f"{request.action} by {request.asked_by} is {request.status}{finished}{detail} [{request.id}]"
    parts = {
        "decided": _decided_text(explanation),
        "desired": desired,
        "now": _now_text(row),
        "back-off": back_off,
        "town": paused,
        "last request": last,
    }
    decision = explanation.decision or "no heartbeat has decided about it yet"
    unknown = [f"  ! {part}: {why}" for part, why in explanation.unknown.items()]
    return [
        *_wrapped([f"{row.agent}: {decision}", *unknown], indent=4),
        *_columns(parts, margin=16),
        *_wrapped([f"  > {step}" for step in explanation.next_steps], indent=4),
    ]


def _decided_text(explanation: Explanation) -> str:
    if explanation.decision is None:
        return _UNKNOWN if explanation.unknown else "-"
    if explanation.decided is None:
        return f"at the last heartbeat of {explanation.now.host}; the time is not known here"
    changes = {
        "its session has started": explanation.now.since,
        "what is desired has changed": explanation.wish.since if explanation.wish else None,
    }
    since = "".join(f"; {what} since" for what, at in changes.items() if at and at > explanation.decided)
    ago = format_short(explanation.decided_ago)
    return f"at the heartbeat of {_clock(explanation.decided)}, {ago} ago{since}"


def _now_text(row: AgentStatus) -> str:
    state = "no session" if row.state is AgentState.NONE else row.state
    words = [state if row.state_age is None else f"{state} for {format_short(row.state_age)}"]
    if row.limited_until:
        words[0] += f" until {_clock(row.limited_until)}"
    if row.observed == "alive":
        words += [
            f"session {row.session} for {format_short(row.age)}",
            f"last activity {format_short(row.idle)} ago",
            "a person is attached" if row.attached else "no person is attached",
        ]
    if row.context is not None:
        words.append(f"context {row.context} % full")
    line = _line(row)
    return ", ".join(words) + (f": {line}" if line else "")


def _columns(parts: dict[str, str], *, margin: int) -> list[str]:
    """Each part as its name and its text, the text in a column."""
    return _wrapped((f"  {name:<{margin - 2}}{text}" for name, text in parts.items()), indent=margin)


def _wrapped(texts: Iterable[str], *, indent: int) -> list[str]:
    """The texts in lines of at most `_WIDTH`, all but the first of each indented."""
    wrapper = textwrap.TextWrapper(
        _WIDTH, subsequent_indent=" " * indent,
        break_on_hyphens=False, replace_whitespace=False, break_long_words=False,
    )  # fmt: skip
    return [line for text in texts for line in wrapper.wrap(strip_controls(text))]


def _clock(at: datetime | None) -> str:
    """The time in the local zone, with the date unless it is today's."""
    if at is None:
        return "-"
    local = at.astimezone()
    today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
