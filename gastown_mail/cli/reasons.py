"""What `explain` says of one agent: its shape as a document (version 1), and the words for people. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import Field

from gastown_mail.cli.glance import UNKNOWN, wrapped
from gastown_mail.cli.report import AgentStatus, Seconds, Source, StatusModel, Wanted
from gastown_mail.cli.rows import format_clock, format_short, is_down, note

MARGIN = 16
PLAIN = ("left alone", "not started", "not poked", "poked")
"""Decisions that are sentences by themselves."""


class DesiredBy(StatusModel):
    """What should be of the agent, and who said so."""

    desired: Wanted | None = None
    by: str
    since: datetime | None = None
    """When that was said; null when it comes from the settings, or is longer ago than events are kept."""


class LastRequest(StatusModel):
    """The last request to the agent, and how it ended."""

    id: str
    action: str
    asked_by: str
    status: str
    received: datetime | None = None
    finished: datetime | None = None
    detail: str = ""


class Explanation(StatusModel):
    """Why the agent was or was not started or poked at the last heartbeat, and how it is now."""

    version: Literal[1] = 1
    asked: datetime
    """When this was asked; every age counts from here."""
    decision: str | None = None
    """What the last heartbeat that looked at the agent decided, in words."""
    decided: datetime | None = None
    """When that heartbeat was completed; null when it ran on another host, or is not known."""
    decided_ago: Seconds | None = None
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


def humanize(decision: str) -> str:
    """A recorded decision as a sentence."""
    if not decision or decision.startswith(PLAIN):
        return decision
    if decision == "delivered":
        return "poked: it was due, and the poke was delivered"
    outcome, _, why = decision.partition(": ")
    if why and outcome in ("held", "failed"):
        return f"not poked: it was due, but the poke {'was held' if outcome == 'held' else 'failed'}: {why}"
    return f"a start was asked for: {decision}"


def next_steps(explanation: Explanation) -> Iterator[str]:
    """What an operator can do, what stands in the way of all else first."""
    row = explanation.now
    if explanation.daemon_runs is False:
        yield "gastown-mail start runs the daemon: without it nobody is started or poked"
    if explanation.unknown:
        yield "gastown-mail doctor says what to do about the parts that do not answer"
    if explanation.town_paused:
        yield "gastown-mail resume --all ends the pause of the whole town"
    if row.desired == "paused":
        yield f"gastown-mail resume {row.agent} ends its pause"
    elif row.observed == "alive" and not explanation.town_paused:
        yield f"gastown-mail poke {row.agent} [TEXT] pokes it now; gastown-mail attach {row.agent} shows it"
    elif row.observed != "alive":
        yield from _steps_when_not_alive(row)
    last = explanation.last_request
    if last and last.status in ("refused", "expired", "failed"):
        yield f"gastown-mail dead revive {last.id} asks again for what its last request asked"


def _steps_when_not_alive(row: AgentStatus) -> Iterator[str]:
    if row.observed == "elsewhere":
        yield f"ask on host {row.host}, where it lives: gastown-mail explain {row.agent}"
    elif row.observed == "foreign":
        yield f"gastown-mail adopt {row.agent} makes the session {row.session} ours; or end it by hand"
    elif row.waits:
        yield f"gastown-mail events --agent {row.agent} shows its starts; mend what ends it"
        yield f"gastown-mail clear {row.agent} ends the {row.waits}"
    elif is_down(row):
        yield f"the next sweep starts it; gastown-mail run {row.agent} does at once"
    elif row.observed in ("none", "ended"):
        yield f"gastown-mail run {row.agent} starts it; keep_running = true in town.toml keeps it running"


def format_explanation(explanation: Explanation) -> list[str]:
    """The explanation as lines for people; the first one is the decision."""
    row = explanation.now
    first = f"{row.agent}: {explanation.decision or 'no heartbeat has decided about it yet'}"
    parts = {
        "decided": _decided(explanation),
        "desired": _desired(explanation),
        "now": _observed(row),
        "gate": _gate(row),
        "town": {None: UNKNOWN, True: "paused: nobody is started or poked", False: "not paused"}[
            explanation.town_paused
        ],
        "last request": _request(explanation),
    }
    lines = [line for name, text in parts.items() for line in _part(name, text)]
    silent = [
        line for part, why in explanation.unknown.items() for line in wrapped(f"  ! {part}: {why}", indent=4)
    ]
    steps = [line for step in explanation.next_steps for line in wrapped(f"  > {step}", indent=4)]
    return [*wrapped(first, indent=4), *silent, *lines, *steps]


def _part(name: str, text: str) -> list[str]:
    return wrapped(f"  {name:<{MARGIN - 2}}{text}", indent=MARGIN)


def _decided(explanation: Explanation) -> str:
    if explanation.decision is None:
        return UNKNOWN if explanation.unknown else "-"
    if explanation.decided is None:
        return f"at the last heartbeat of {explanation.now.host}; when that was is not known here"
    newer = {
        "its session has started": explanation.now.since,
        "what is desired has changed": explanation.wish.since if explanation.wish else None,
    }
    since = "".join(f"; {what} since" for what, at in newer.items() if at and at > explanation.decided)
    ago = format_short(explanation.decided_ago)
    return f"at the heartbeat of {format_clock(explanation.decided)}, {ago} ago{since}"


def _desired(explanation: Explanation) -> str:
    if explanation.wish is None:
        return UNKNOWN
    since = f", since {format_clock(explanation.wish.since)}" if explanation.wish.since else ""
    must = "; it is started again whenever it does not run" if explanation.now.must_run else ""
    desired = explanation.wish.desired or ("running" if explanation.now.must_run else "nothing")
    return f"{desired}, by {explanation.wish.by}{since}{must}"


def _observed(row: AgentStatus) -> str:
    if row.observed != "alive":
        said = note(row.model_copy(update={"waits": None}))
        return row.observed + ("" if said == "-" else f": {said}")
    attached = "a person is attached" if row.attached else "nobody is attached"
    active = f"last activity {format_short(row.idle)} ago"
    return f"alive for {format_short(row.age)} in session {row.session}, {active}, {attached}"


def _gate(row: AgentStatus) -> str:
    if row.desired == "unknown":
        return UNKNOWN
    if row.waits and row.waits_until:
        return f"closed for automatic starts: {row.waits} until {format_clock(row.waits_until)}"
    return "open"


def _request(explanation: Explanation) -> str:
    request = explanation.last_request
    if request is None:
        return UNKNOWN if explanation.unknown else "none that is still known"
    ended = f" at {format_clock(request.finished)}" if request.finished else ""
    detail = f": {request.detail}" if request.detail else ""
    return f"{request.action} by {request.asked_by} is {request.status}{ended}{detail} [{request.id}]"
