"""What the periodic jobs do: a heartbeat over all agents of this host, and the sweep between two of them."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.contracts.state import State
from gastown_mail.lifecycle.heartbeat_policy import (
    AgentSnapshot,
    Decision,
    PokeAgent,
    Skip,
    SkipKind,
    StartAgent,
    plan,
    stable_agents,
)
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.poke import Poke, PokeOutcome, PokeResult
from gastown_mail.town.backoff import NO_HISTORY
from gastown_mail.town.lease import is_held
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town, recover_after_flush

log = logging.getLogger(__name__)


def run_heartbeat(town: Town) -> State:
    """Start agents that should be running, poke idle agents that are due, sweep, count, write state.json.

    Raises StateUnknown when tmux gives no usable answer; such a heartbeat does not count.
    """
    recover_after_flush(town)
    snapshots, decisions = observe(town)
    _enqueue_starts(town, decisions)
    results = poke_all(town, [decision for decision in decisions if isinstance(decision, PokeAgent)])
    _store_decisions(town, snapshots, decisions, results)
    now = datetime.now(UTC)
    for agent in stable_agents(snapshots, now, town.settings.daemon):
        town.agents.write_start_history(agent.address, NO_HISTORY)
        record_event(town.redis, town.keys, EventName.RECOVERED, agent=agent.address)
    town.save_desired()
    requeued = _requeue_orphans(town)
    state = town.state.count_heartbeat(datetime.now(UTC))
    delivered = [outcome.result is PokeResult.DELIVERED for outcome in results.values()]
    record_event(
        town.redis, town.keys, EventName.HEARTBEAT, number=state.heartbeat_count,
        started=sum(isinstance(decision, StartAgent) for decision in decisions),
        poked=sum(delivered), held=len(delivered) - sum(delivered),
        left=sum(isinstance(decision, Skip) for decision in decisions),
        requeued=requeued,
    )  # fmt: skip
    return state


def run_sweep(town: Town) -> int:
    """Requeue work left by dead processes and start agents that should be running; return how many."""
    recover_after_flush(town)
    requeued = _requeue_orphans(town)
    try:
        _, decisions = observe(town)
        _enqueue_starts(town, decisions)
    except StateUnknown as error:
        log_event(log, "not_looked", level=logging.WARNING, detail=str(error))
    return requeued


def observe(town: Town) -> tuple[list[AgentSnapshot], list[Decision]]:
    """Take one snapshot of Redis and one of tmux, and decide for each agent. Raises StateUnknown."""
    agents = list(town.local_agents().values())
    records = town.agents.read_all([agent.address for agent in agents])
    sessions = town.sessions.snapshot()
    pairs = zip(agents, records, strict=True)
    snapshots = [AgentSnapshot(agent, record, sessions.get(agent.session)) for agent, record in pairs]
    if town.is_paused():
        return snapshots, [Skip(agent, SkipKind.LEFT_ALONE, "the town is paused") for agent in agents]
    return snapshots, plan(snapshots, datetime.now(UTC), town.settings.daemon)


def _enqueue_starts(town: Town, decisions: Sequence[Decision]) -> None:
    """Enqueue a job for each start that has none yet; the job checks the agent again."""
    starts = [decision for decision in decisions if isinstance(decision, StartAgent)]
    queued = set(town.queues.lifecycle(town.host).job_ids) if starts else set()
    with town.redis.pipeline() as pipe:
        for start in starts:
            if town.queues.start_job_id(start.agent) not in queued:
                town.queues.enqueue_start(start.agent, start.why, pipe)
        pipe.execute()


def poke_all(town: Town, pokes: Sequence[PokeAgent]) -> dict[str, PokeOutcome]:
    """Type into all these sessions at once; return the outcome by address."""
    if not pokes:
        return {}
    outcomes = town.sessions.poke([Poke(poke.session, poke.text) for poke in pokes])
    results = {poke.agent.address: outcomes[poke.session.name] for poke in pokes}
    now = datetime.now(UTC)
    with town.redis.pipeline() as pipe:
        for poke in pokes:
            outcome = results[poke.agent.address]
            if outcome.result is PokeResult.DELIVERED:
                changes = AgentRecord(last_poke=now, unanswered=poke.unanswered)
                town.agents.write(poke.agent.address, changes, pipe=pipe)
            record_event(pipe, town.keys, EventName.POKE, agent=poke.agent.address, outcome=str(outcome))
        pipe.execute()
    return results


def poke_agent(town: Town, address: str, text: str = "") -> PokeOutcome:
    """Poke one agent now, idle or not. An empty text means its own poke."""
    agent = town.roster().resolve(address)
    session = town.sessions.find(agent.session)
    if session is None:
        return PokeOutcome(PokeResult.FAILED, "it has no session; `gastown-mail run` starts one")
    message = text or agent.poke
    if not message:
        return PokeOutcome(PokeResult.FAILED, "it has no poke; give a text")
    if town.agents.read(agent.address).desired is Desired.PAUSED or town.is_paused():
        return PokeOutcome(PokeResult.HELD, "paused")
    return poke_all(town, [PokeAgent(agent, session, message, 0)])[agent.address]


def _requeue_orphans(town: Town) -> int:
    """Enqueue every open request that no worker carries out and no queue holds; return how many."""
    received = town.requests.unsettled()
    if not received:
        return 0
    records = dict(zip(received, town.requests.records(list(received)), strict=True))
    addresses = {request_id: r["agent"] for request_id, r in records.items() if r.get("agent")}
    agents, queued = town.local_agents(), set(town.queues.lifecycle(town.host).job_ids)
    orphans = [
        request_id
        for request_id, address in addresses.items()
        if address in agents
        and town.queues.request_job_id(request_id) not in queued
        and not is_held(town.redis, town.keys.lease(address), town.host)
    ]
    for request_id in orphans:
        town.queues.enqueue_request(request_id, agents[addresses[request_id]])
        log_event(log, "requeued", request_id=request_id, agent=addresses[request_id])
    _expire_unserved(town, received, addresses)
    return len(orphans)


def _expire_unserved(town: Town, received: dict[str, float], addresses: dict[str, str]) -> None:
    """Settle old requests for agents that no worker of this host serves; workers find the others."""
    now = datetime.now(UTC)
    oldest = now.timestamp() - town.settings.daemon.max_request_age
    agents = town.roster().agents
    for request_id, address in addresses.items():
        served_here = address in agents and agents[address].host == town.host
        if not served_here and received[request_id] < oldest:
            detail = "no worker of its host took it"
            town.requests.settle(request_id, address, RequestStatus.EXPIRED, detail, now)


def _store_decisions(
    town: Town,
    snapshots: Sequence[AgentSnapshot],
    decisions: Sequence[Decision],
    results: dict[str, PokeOutcome],
) -> None:
    """Store the reason of each decision, for `explain`."""
    with town.redis.pipeline(transaction=False) as pipe:
        for snapshot, decision in zip(snapshots, decisions, strict=True):
            address = decision.agent.address
            why = str(results.get(address, decision.why))
            if isinstance(decision, PokeAgent):
                record = AgentRecord(decision=why, last_activity=decision.session.activity)
                town.agents.write(address, record, pipe=pipe)
            elif why != snapshot.record.decision:
                town.agents.write(address, AgentRecord(decision=why), pipe=pipe)
        pipe.execute()
