"""What the periodic jobs do: a heartbeat's round over all agents of this host, and the sweep in between."""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.contracts.state import State
from gastown_mail.lifecycle.heartbeat_policy import (
    AgentSnapshot,
    Decision,
    PokeAgent,
    Skip,
    StartAgent,
    plan,
    stable_agents,
)
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions import poke as typing
from gastown_mail.town.backoff import NO_HISTORY
from gastown_mail.town.lease import is_held
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town

log = logging.getLogger(__name__)


def run_heartbeat(town: Town) -> State:
    """One round: start what must run, poke who is due, sweep, count, mirror.

    Raises Unknown when tmux does not answer: then it does not count.
    """
    town.recover_after_flush()
    snapshots, decisions = observe(town)
    enqueue_starts(town, decisions)
    results = poke_all(town, [act for act in decisions if isinstance(act, PokeAgent)])
    _store_decisions(town, snapshots, decisions, results)
    _reset_stable(town, snapshots)
    town.save_desired()
    requeued = requeue_orphans(town)
    state = town.state.count_heartbeat(datetime.now(UTC))
    record_event(
        town.redis,
        town.keys,
        "heartbeat",
        number=state.heartbeat_count,
        **_counts(decisions, results),
        requeued=requeued,
    )
    return state


def run_sweep(town: Town) -> int:
    """Between heartbeats: what a dead worker left is queued again, and what must run is started."""
    town.recover_after_flush()
    requeued = requeue_orphans(town)
    try:
        _, decisions = observe(town)
        enqueue_starts(town, decisions)
    except StateUnknown as error:
        log_event(log, "not_looked", level=logging.WARNING, detail=str(error))
    return requeued


def observe(town: Town) -> tuple[list[AgentSnapshot], list[Decision]]:
    """One snapshot of Redis and one of tmux, and what follows from them. Raises Unknown."""
    agents = list(town.local_agents().values())
    records = town.agents.read_all([agent.address for agent in agents])
    sessions = town.sessions.snapshot()
    pairs = zip(agents, records, strict=True)
    snapshots = [AgentSnapshot(agent, record, sessions.get(agent.session)) for agent, record in pairs]
    if town.is_paused():
        return snapshots, [Skip(agent, "left alone: the town is paused") for agent in agents]
    return snapshots, plan(snapshots, datetime.now(UTC), town.settings.daemon)


def enqueue_starts(town: Town, decisions: Sequence[Decision]) -> None:
    """Put a job for each start that does not wait already; the job looks again."""
    starts = [act for act in decisions if isinstance(act, StartAgent)]
    waiting = set(town.queues.lifecycle(town.host).job_ids) if starts else set()
    with town.redis.pipeline() as pipe:
        for act in starts:
            if town.queues.start_job_id(act.agent) not in waiting:
                town.queues.enqueue_start(act.agent, act.why, pipe)
        pipe.execute()


def poke_all(town: Town, pokes: Sequence[PokeAgent]) -> dict[str, str]:
    """Type into all of them at once; what became of each, by address."""
    if not pokes:
        return {}
    outcomes = town.sessions.poke([typing.Poke(act.session, act.text) for act in pokes])
    results = {act.agent.address: outcomes[act.session.name] for act in pokes}
    now = datetime.now(UTC)
    with town.redis.pipeline() as pipe:
        for act in pokes:
            outcome = results[act.agent.address]
            if outcome == "delivered":
                town.agents.write(act.agent.address, pipe=pipe, last_poke=now, misses=act.unanswered)
            record_event(pipe, town.keys, "poke", agent=act.agent.address, outcome=outcome)
        pipe.execute()
    return results


def poke_agent(town: Town, address: str, text: str = "") -> str:
    """Poke one agent now, idle or not; return `delivered` or why not. An empty text means its own poke."""
    agent = town.roster().resolve(address)
    session = town.sessions.find(agent.session)
    if session is None:
        return "failed: it has no session; `gastown-mail run` starts one"
    message = text or agent.poke
    if not message:
        return "failed: it has no poke; give a text"
    if town.agents.read(agent.address).desired is Desired.PAUSED or town.is_paused():
        return "held: paused"
    return poke_all(town, [PokeAgent(agent, session, message, 0)])[agent.address]


def requeue_orphans(town: Town) -> int:
    """Queue again every open request that nobody carries out and no queue holds; return how many."""
    received = town.requests.unsettled()
    if not received:
        return 0
    records = dict(zip(received, town.requests.records(list(received)), strict=True))
    mine = {rid: record["agent"] for rid, record in records.items() if record.get("agent")}
    agents, queued = town.local_agents(), set(town.queues.lifecycle(town.host).job_ids)
    left = [(i, a) for i, a in mine.items() if a in agents and _is_orphaned(town, i, a, queued)]
    for request_id, address in left:
        town.queues.enqueue_request(request_id, agents[address])
        log_event(log, "requeued", request_id=request_id, agent=address)
    _expire(town, received, mine)
    return len(left)


def _is_orphaned(town: Town, request_id: str, address: str, queued: Collection[str]) -> bool:
    """Does no queue hold the request, and does nobody act on its agent?"""
    if town.queues.request_job_id(request_id) in queued:
        return False
    return not is_held(town.redis, town.keys.lease(address), town.host)


def _expire(town: Town, received: dict[str, float], agents: dict[str, str]) -> None:
    """Settle what is too old and belongs to nobody's workers; carrying out finds the rest."""
    now = datetime.now(UTC)
    oldest = now.timestamp() - town.settings.daemon.max_request_age
    known = town.roster().agents
    for request_id, address in agents.items():
        orphaned = address not in known or known[address].host != town.host
        if orphaned and received[request_id] < oldest:
            town.requests.settle(
                request_id, address, RequestStatus.EXPIRED, "no worker of its host took it", now
            )


def _store_decisions(
    town: Town, snapshots: Sequence[AgentSnapshot], decisions: Sequence[Decision], results: dict[str, str]
) -> None:
    """Keep the reason of each decision, for the operator who asks why."""
    with town.redis.pipeline(transaction=False) as pipe:
        for one, act in zip(snapshots, decisions, strict=True):
            fields: dict[str, str | datetime] = {"decision": results.get(act.agent.address, act.why)}
            if isinstance(act, PokeAgent):
                fields["last_activity"] = datetime.fromtimestamp(act.session.activity, UTC)
            if fields["decision"] != one.record.decision or len(fields) > 1:
                town.agents.write(act.agent.address, pipe=pipe, **fields)
        pipe.execute()


def _reset_stable(town: Town, snapshots: Sequence[AgentSnapshot]) -> None:
    for agent in stable_agents(snapshots, datetime.now(UTC), town.settings.daemon):
        town.agents.write_gate(agent.address, NO_HISTORY)
        record_event(town.redis, town.keys, "recovered", agent=agent.address)


def _counts(decisions: Sequence[Decision], results: dict[str, str]) -> dict[str, int]:
    return {
        "started": sum(isinstance(act, StartAgent) for act in decisions),
        "poked": sum(outcome == "delivered" for outcome in results.values()),
        "held": sum(outcome != "delivered" for outcome in results.values()),
        "left": sum(isinstance(act, Skip) for act in decisions),
    }
