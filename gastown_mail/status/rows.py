"""One agent's row of the report, from its record in Redis and what tmux shows."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.lifecycle.heartbeat_policy import should_run
from gastown_mail.sessions.panes import Session, Snapshot
from gastown_mail.status.model import AgentStatus, Observed, age, known_time
from gastown_mail.town.observed import Observation
from gastown_mail.town.places import Places
from gastown_mail.town.records import AgentRecord

_TELLING = frozenset(
    (AgentState.ASKS, AgentState.LIMITED, AgentState.DRAFT, AgentState.ENDED, AgentState.UNKNOWN)
)
"""The states of which a line tells more."""


def agent_status(
    agent: Agent,
    sessions: Snapshot | None,
    seen: Observation | None,
    record: AgentRecord | None,
    places: Places,
    *,
    now: datetime,
) -> AgentStatus:
    """What is known here about one agent.

    `sessions` are the live tmux sessions, and `seen` is what they show of the agent; both are None if
    tmux did not answer. `record` is None if Redis did not.
    """
    session = sessions.of(agent, places.sessions.town) if sessions else None
    host = places.believed_host(agent, record or AgentRecord())
    seen = seen or Observation(AgentState.UNKNOWN if host == places.host else AgentState.ELSEWHERE)
    if record is None:  # since when, and until when, only the record could tell
        seen = replace(seen, since=None, until=None)
    if seen.state is AgentState.ELSEWHERE:
        observed: Observed = "elsewhere"
    elif sessions is None or (session is None and seen.state is AgentState.UNKNOWN):
        observed = "unknown"
    elif session is None:
        observed = "none"
    elif not session.incarnation:
        observed = "foreign"
    else:
        observed = "ended" if session.dead else "alive"
    return AgentStatus(
        agent=agent.address, host=host, session=agent.session, observed=observed,
        program=agent.program, has_poke=bool(agent.poke), work_dir=str(agent.work_dir),
        **_from_observation(seen, now),
        **_from_record(agent, record, now, is_alive=observed == "alive"),
        **(_from_session(session, seen, now) if session and observed == "alive" else {}),
        exit_status=session.exit_status if session and observed == "ended" else None,
    )  # fmt: skip


def _from_record(
    agent: Agent, record: AgentRecord | None, now: datetime, *, is_alive: bool
) -> dict[str, Any]:
    if record is None or record.damage:
        damage = record.damage if record else None
        return {"desired": "unknown", "damage": damage, "decision": damage and f"left alone: {damage}"}
    history, last_poke = record.start_history, known_time(record.last_poke)
    waits = until = None
    if history.blocked_reason(now) and should_run(agent, record) and not is_alive:
        waits = "quarantine" if now < history.quarantined_until else "back-off"
        until = history.quarantined_until if waits == "quarantine" else history.not_before
    return {
        "desired": record.desired.value if record.desired else None,
        "must_run": should_run(agent, record),
        "waits": waits,
        "waits_until": until,
        "last_poke": last_poke,
        "since_poke": age(last_poke, now),
        "restarts": record.restarts,
        "start_fault": record.start_fault or None,
        "decision": record.decision or None,
    }


def _from_observation(seen: Observation, now: datetime) -> dict[str, Any]:
    return {
        "state": seen.state,
        "state_since": seen.since,
        "state_age": age(seen.since, now),
        "state_line": seen.line or None if seen.state in _TELLING else None,
        "limited_until": seen.until,
        "context": seen.context,
    }


def _from_session(session: Session, seen: Observation, now: datetime) -> dict[str, Any]:
    # tmux gives activity in whole seconds: without max it could be before the start
    since, active = session.started_at, max(seen.active or session.activity, session.started_at)
    return {
        "since": since,
        "age": age(since, now),
        "active": active,
        "idle": age(active, now),
        "attached": session.attached,
    }
