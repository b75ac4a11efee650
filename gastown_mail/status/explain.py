"""Why one agent was or was not started or poked, how it is now, and what an operator can do."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import format_local, parse_time
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.lifecycle.heartbeat_policy import SkipKind
from gastown_mail.lifecycle.preflight import start_obstacle
from gastown_mail.mail.events import Event, read_latest
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.daemon_environment import daemon_environment
from gastown_mail.status.health import blocking_problems, is_gone, person_step
from gastown_mail.status.model import AgentStatus, DesiredBy, Explanation, Host, LastRequest, Report, age
from gastown_mail.town.town import Town

_EVENTS_READ = 5000
"""How many of the newest events are searched for the agent's last request and its desired state."""


def explain_agent(collector: StatusCollector, agent: Agent) -> Explanation:
    """All that is known about the agent; `unknown` names what does not answer."""
    report = collector.report()
    row = next(row for row in report.agents or () if row.agent == agent.address)
    town, address = collector.town, agent.address
    latest = collector.ask_redis("records", lambda: read_latest(town.redis, town.keys, _EVENTS_READ))
    events = [event for event in latest or () if event.fields.get("agent") == address]
    request = collector.ask_redis("records", lambda: _last_request(town, address, events))
    decided = report.decided_at(row)
    explanation = Explanation(
        asked=report.asked, decision=_humanize(row.decision) if row.decision else None,
        decided=decided, decided_ago=age(decided, report.asked), now=row,
        wish=None if row.desired == "unknown" else _desired_by(agent, row, events),
        town_paused=report.paused, daemon_runs=report.daemon.running and report.daemon.held,
        last_request=request, unknown=report.unknown | collector.unknown,
    )  # fmt: skip
    is_here = row.host == town.host
    fault = start_obstacle(town, agent, daemon_environment(collector)) if is_here else None
    return explanation.model_copy(update={"next_steps": tuple(_next_steps(explanation, report, fault))})


def _humanize(decision: str) -> str:
    """A recorded decision as a sentence."""
    if not decision or decision.startswith(tuple(SkipKind)):
        return decision
    if decision == "delivered":
        return "poked: it was due, and the poke was delivered"
    outcome, _, why = decision.partition(": ")
    if why and outcome in ("held", "failed"):
        return f"not poked: it was due, but the poke {'was held' if outcome == 'held' else 'failed'}: {why}"
    return f"a start was asked for: {decision}"


def _desired_by(agent: Agent, row: AgentStatus, events: Sequence[Event]) -> DesiredBy:
    """What is desired of the agent, and by whom, as far as `events` (oldest first) still tell."""
    if row.desired is None:
        return DesiredBy(by=f"its settings: keep_running = {'true' if agent.keep_running else 'false'}")
    changes = [event for event in events if event.fields.get("event") in ("desired", "carrying")]
    if not changes:
        return DesiredBy(desired=row.desired, by="an operator or a request, longer ago than events are kept")
    fields, since = changes[-1].fields, datetime.fromtimestamp(changes[-1].epoch, UTC)
    request = fields.get("request")
    by = f"request {request} ({fields.get('action', '?')})" if request else "an operator"
    return DesiredBy(desired=row.desired, by=by, since=since)


def _last_request(town: Town, address: str, events: Sequence[Event]) -> LastRequest | None:
    """The newest request to the agent that is pending, or else the newest in `events`."""
    ids = [event.fields["request"] for event in events if "request" in event.fields]
    for request_id in reversed(ids + town.requests.pending(address)):
        if record := town.requests.record(request_id):
            return _from_record(request_id, record)
    return None


def _from_record(request_id: str, record: dict[str, str]) -> LastRequest:
    received, finished = record.get("received_at"), record.get("finished_at")
    return LastRequest(
        id=request_id, action=record.get("action", ""), asked_by=record.get("from", ""),
        status=record.get("status", ""), detail=record.get("detail", ""),
        received=parse_time(received) if received else None,
        finished=parse_time(finished) if finished else None,
    )  # fmt: skip


def _next_steps(explanation: Explanation, report: Report, fault: str | None) -> Iterator[str]:
    """What an operator can do, first against what stops the whole town. `fault`: why no start succeeds."""
    row, last = explanation.now, explanation.last_request
    hosts = [_only(host, row.agent) for host in report.hosts or () if host.host == row.host]
    problems = blocking_problems(report.model_copy(update={"hosts": hosts}))
    condition = "when that is done, " if problems else ""
    yield from (f"{problem.reason}: {problem.remedy}" for problem in problems)
    if explanation.unknown:
        yield "gastown-mail doctor says what to do about the parts that do not answer"
    if row.desired == "paused":
        yield f"gastown-mail resume {row.agent} ends its pause"
    elif row.observed == "elsewhere" and any(host.here for host in hosts):
        yield f"if that is lost for good, gastown-mail move {row.agent} {row.host} --from-dead starts it here"
    elif row.observed == "elsewhere" and not any(is_gone(host, report.asked) for host in hosts):
        yield f"ask on host {row.host}, where it lives: gastown-mail explain {row.agent}"
    elif row.observed == "unknown" and row.state_line:
        yield f"nothing is started or ended until it is seen: {row.state_line}"
    elif row.observed == "foreign":
        yield f"gastown-mail adopt {row.agent} adopts the session {row.session}; or end that session yourself"
    elif row.observed in ("none", "ended"):
        yield from _steps_to_start(row, fault, condition)
    elif row.observed == "alive":
        yield _step_with_session(row, condition)
    if last and last.status in ("refused", "expired", "failed"):
        yield f"gastown-mail dead revive {last.id} repeats its last request"


def _only(host: Host, address: str) -> Host:
    """The host as far as it concerns this agent, so that a remedy names this one and no other."""
    return host.model_copy(update={"agents": [one for one in host.agents if one == address]})


def _step_with_session(row: AgentStatus, condition: str) -> str:
    look = f"gastown-mail attach {row.agent}"
    if row.state is AgentState.READY:
        return f"{look} shows it; {condition}gastown-mail poke {row.agent} [TEXT] pokes it"
    if row.state is not AgentState.LIMITED:
        return person_step(row) or f"{look} shows it; it can be poked when it is ready"
    if row.limited_until is None:
        return f"{look} shows it; it can be poked when its usage limit has ended"
    until = format_local(row.limited_until)
    if not row.has_poke:
        return f"it has no poke: {look} and continue it after {until}"
    nobody = "unless a person is attached then"
    return f"nothing is to be done: {condition}the first heartbeat after {until} pokes it, {nobody}"


def _steps_to_start(row: AgentStatus, fault: str | None, condition: str) -> Iterator[str]:
    run = f"gastown-mail run {row.agent} starts it"
    if fault:
        yield f"it cannot be started: {fault}"
    elif row.start_fault:
        yield f"its last start failed: {row.start_fault}"
    if row.waits:
        yield f"gastown-mail events --agent {row.agent} shows its starts; correct what ends it"
        yield f"gastown-mail clear {row.agent} ends the {row.waits}"
    elif row.is_down and not fault:
        again = "tries again" if row.start_fault else "starts it"
        yield f"{condition}the next sweep {again}; {run} at once"
    elif not fault:
        yield f"{condition}{run}; keep_running = true in town.toml keeps it running"
