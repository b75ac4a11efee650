"""The only functions that an rq worker runs. A process serves one town, named with `bind`."""

import logging
import time
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import GastownError, ProcessesSurvived, StartFailed, StateUnknown
from gastown_mail.daemon import lifecycle, rounds
from gastown_mail.daemon.gate import check_crash_loop
from gastown_mail.daemon.handoff import handoff_file
from gastown_mail.daemon.heartbeat import PokeAgent, should_run
from gastown_mail.daemon.record import AgentRecord, Desired
from gastown_mail.daemon.starting import SessionStart, preflight, search_path
from gastown_mail.daemon.town import Town
from gastown_mail.daemon.turn import Lease, hold_lease
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.log import log_event

log = logging.getLogger(__name__)
_served: list[Town] = []


def bind(town: Town) -> None:
    """Say which town this process serves."""
    _served[:] = [town]


def _town() -> Town:
    if not _served:
        raise GastownError("this worker serves no town; start it with worker.py or `gastown-mail up`")
    return _served[0]


def carry_out(request_id: str) -> str:
    """Carry out one request; returns its status (see `lifecycle.carry_out`)."""
    return lifecycle.carry_out(_town(), request_id)


def start(address: str, why: str, by: str = "") -> str:
    """Start the agent's session unless one lives or it shall not run; returns what came of it.

    `by` names the person who wants it; without one it is an automatic start, which passes the gate.
    """
    town = _town()
    agent = town.roster().resolve(address)
    with hold_lease(town.redis, town.keys.lease(agent.address), town.host) as lease:
        if lease is None:
            return "busy: something is being done to it; try again"
        try:
            town.ensure_running()
            answer = _start(town, lease, agent, why, by)
        except (StartFailed, ProcessesSurvived, StateUnknown) as error:
            record_event(town.redis, town.keys, "not_started", agent=address, detail=str(error))
            return f"failed: {error}"
    lifecycle.enqueue_next(town, agent.address)
    return answer


def _start(town: Town, lease: Lease, agent: Agent, why: str, by: str) -> str:
    record, session = town.agents.read(agent.address), town.sessions.find(agent.session)
    if session is not None and not session.incarnation:
        return f"left alone: the session {session.name} is not ours; adopt it"
    if session is not None and not session.dead:
        return "runs already"
    if request := lifecycle.request_in_progress(town, agent.address):
        return f"left alone: request {request} is being carried out"
    if record.desired in (Desired.PAUSED, Desired.STOPPED):
        return f"left alone: {record.desired.value}"
    if not by and not should_run(agent, record):
        return "left alone: it need not run"
    if refusal := None if by else _blocked_reason(town, agent, record):
        return f"left alone: {refusal}"
    if fault := preflight(agent, town.settings.town_root, search_path()):
        raise StartFailed(fault)
    record_event(town.redis, town.keys, "starting", agent=agent.address, detail=why)
    if session is not None:
        town.sessions.end(session, grace=agent.stop_grace)
    elif record.incarnation:
        town.sessions.end_orphans(record.incarnation, grace=agent.stop_grace)
    handoff = _owed_handoff(town, agent, record)
    begun = SessionStart(town, lease, agent, why, handoff, automatic=not by).run()
    return f"started {begun.name}, pid {begun.pid}"


def _owed_handoff(town: Town, agent: Agent, record: AgentRecord) -> Path | None:
    """The handoff of a cycle whose successor did not come up, for the successor that does."""
    file = handoff_file(town, agent)
    return file if record.owed and file.exists() else None


def _blocked_reason(town: Town, agent: Agent, record: AgentRecord) -> str | None:
    """Why the gate lets no automatic start through now; a crash loop that shows is written down."""
    now = time.time()
    gate = check_crash_loop(record.gate, now, town.settings.daemon)
    if gate != record.gate:
        town.agents.write_gate(agent.address, gate)
    refusal = gate.blocked_reason(now)
    if refusal and gate.quarantined_until != record.gate.quarantined_until:
        record_event(town.redis, town.keys, "quarantined", agent=agent.address, detail=refusal)
    return refusal


def poke(address: str, text: str = "") -> str:
    """Poke one agent now, at an operator's wish; returns `delivered` or why not."""
    town = _town()
    agent = town.roster().resolve(address)
    session = town.sessions.find(agent.session)
    if session is None:
        return "failed: it has no session; `gastown-mail run` starts one"
    message = text or agent.poke
    if not message:
        return "failed: it has no poke; give a text"
    if town.agents.read(agent.address).desired is Desired.PAUSED or town.is_paused():
        return "held: paused"
    return rounds.poke_all(town, [PokeAgent(agent, session, message, 0)])[agent.address]


def heartbeat() -> str:
    """One heartbeat, unless one is running; returns what it did."""
    town = _town()
    with hold_lease(town.redis, town.keys.heartbeat(town.host), town.host) as mine:
        if not mine:
            return "another heartbeat is running"
        try:
            return f"heartbeat {rounds.heartbeat(town).heartbeat_count}"
        except StateUnknown as error:
            record_event(town.redis, town.keys, "heartbeat_failed", detail=str(error))
            return f"failed: {error}"


def sweep() -> str:
    """Pick up what was left lying, unless a sweep is running."""
    town = _town()
    with hold_lease(town.redis, town.keys.sweep(town.host), town.host) as mine:
        if not mine:
            return "another sweep is running"
        began = datetime.now(UTC)
        try:
            requeued = rounds.sweep(town)
        except StateUnknown as error:
            return f"failed: {error}"
        log_event(log, "swept", level=logging.DEBUG, requeued=requeued, took_ms=_ms_since(began))
        return f"{requeued} requeued"


def _ms_since(began: datetime) -> int:
    return round((datetime.now(UTC) - began).total_seconds() * 1000)
