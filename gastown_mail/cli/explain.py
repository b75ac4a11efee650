"""`explain`: why an agent was or was not started or poked at the last heartbeat, and what can be done."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from gastown_mail.cli.look import StatusCollector
from gastown_mail.cli.options import complete_agents, json_option, load, town_option
from gastown_mail.cli.reasons import (
    DesiredBy,
    Explanation,
    LastRequest,
    format_explanation,
    humanize,
    next_steps,
)
from gastown_mail.cli.report import AgentStatus, Report
from gastown_mail.cli.rows import age
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.mail.events import Event, read_latest
from gastown_mail.town.town import Town

EVENTS_READ = 5000
"""So many of the newest events are searched for the agent's last request, and for who wished what."""


@click.command()
@town_option
@json_option
@click.argument("agent", shell_complete=complete_agents)
def explain(as_json: bool, agent: str) -> None:
    """Say why AGENT was or was not started or poked at the last heartbeat, and what can be done."""
    look = StatusCollector(load())
    told = explanation(look, look.town.roster().resolve(agent))
    click.echo(told.model_dump_json(indent=2) if as_json else "\n".join(format_explanation(told)))
    if look.failure:
        raise look.failure


def explanation(look: StatusCollector, agent: Agent) -> Explanation:
    """All that is known of why; what does not answer is in `unknown`."""
    report = look.report()
    row = next(row for row in report.agents or () if row.agent == agent.address)
    events = look.ask_redis("records", lambda: _events(look.town, agent.address))
    request = look.ask_redis("records", lambda: _last_request(look.town, agent.address, events or ()))
    decided = decided_at(report, row)
    told = Explanation(
        asked=report.asked, decision=humanize(row.decision) if row.decision else None, now=row,
        wish=None if row.desired == "unknown" else desired_by(agent, row, events or ()),
        town_paused=report.paused, daemon_runs=report.daemon.running and report.daemon.held,
        last_request=request, unknown=report.unknown | look.unknown, decided=decided,
        decided_ago=age(decided, report.asked) if decided else None,
    )  # fmt: skip
    return told.model_copy(update={"next_steps": tuple(next_steps(told))})


def decided_at(report: Report, row: AgentStatus) -> datetime | None:
    """When the decision fell: at the town's last heartbeat, if that one looked at this agent."""
    if not row.decision or row.observed == "elsewhere" or report.heartbeat is None:
        return None
    return report.heartbeat.last


def _events(town: Town, address: str) -> list[Event]:
    found = read_latest(town.redis, town.keys, EVENTS_READ)
    return [event for event in found if event.fields.get("agent") == address]


def desired_by(agent: Agent, row: AgentStatus, events: Sequence[Event]) -> DesiredBy:
    """What is desired of the agent, and by whom, as far as `events` (oldest first) still tell."""
    desired = row.desired
    if desired is None:
        return DesiredBy(by=f"its settings: keep_running = {'true' if agent.keep_running else 'false'}")
    said = next((e for e in reversed(events) if e.fields.get("event") in ("desired", "carrying")), None)
    if said is None:
        return DesiredBy(desired=desired, by="somebody, longer ago than events are kept")
    request = said.fields.get("request")
    by = f"request {request} ({said.fields.get('action', '?')})" if request else "an operator"
    return DesiredBy(desired=desired, by=by, since=datetime.fromtimestamp(said.epoch, UTC))


def _last_request(town: Town, address: str, events: Sequence[Event]) -> LastRequest | None:
    """The newest request to the agent that waits, or else that `events` tell of."""
    told = [event.fields["request"] for event in events if "request" in event.fields]
    for request_id in reversed(told + town.requests.pending(address)):
        if record := town.requests.record(request_id):
            return request_of(request_id, record)
    return None


def request_of(request_id: str, record: dict[str, str]) -> LastRequest:
    """A request's public record in the words of the document."""
    times = {
        name: parse_time(record[f"{name}_at"])
        for name in ("received", "finished")
        if record.get(f"{name}_at")
    }
    return LastRequest(
        id=request_id, action=record.get("action", ""), asked_by=record.get("from", ""),
        status=record.get("status", ""), detail=record.get("detail", ""), **times,
    )  # fmt: skip
