"""What the periodic jobs do: a heartbeat over all agents of this host, and the sweep between two of them."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.lifecycle import AgentState, LifecycleAction, RequestStatus, full_context_id
from gastown_mail.contracts.state import State
from gastown_mail.lifecycle.heartbeat_policy import (
    AgentSnapshot,
    CycleAgent,
    Decision,
    PokeAgent,
    ReleaseAgent,
    Skip,
    SkipKind,
    StartAgent,
    plan,
    stable_agents,
)
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.mail.send import build_element
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.poke import Poke, PokeOutcome, PokeResult
from gastown_mail.town.backoff import NO_HISTORY
from gastown_mail.town.lease import hold_leases, is_held
from gastown_mail.town.observed import observe_all
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town, recover_after_flush

log = logging.getLogger(__name__)

_IN_PROGRESS = PokeOutcome(PokeResult.HELD, "another operation on this agent is in progress")
_LEASE_PATIENCE, _LEASE_POLL = 5.0, 0.1
"""Seconds for which an operator's poke waits for such an operation, and between two looks."""

_HANDOFF_LINES, _HANDOFF_CHARS = 60, 12_000


def run_heartbeat(town: Town) -> State:
    """Start agents that should be running, poke idle agents that are due, sweep, count, write state.json.

    Raises StateUnknown when tmux gives no usable answer; such a heartbeat does not count.
    """
    began, before = town.now().timestamp(), town.state.read().last_heartbeat
    recover_after_flush(town)
    snapshots, decisions = observe(town)
    store_observations(town, snapshots)
    _enqueue_starts(town, decisions)
    _release(town, decisions)
    _ask_for_cycles(town, decisions)
    pokes = [decision for decision in decisions if isinstance(decision, PokeAgent)]
    results = poke_all(town, pokes, until=began + town.settings.daemon.heartbeat_interval)
    _store_decisions(town, snapshots, decisions, results)
    now = town.now()
    for agent in stable_agents(snapshots, now, town.settings.daemon):
        town.agents.write_start_history(agent.address, NO_HISTORY)
        record_event(town.redis, town.keys, EventName.RECOVERED, agent=agent.address)
    town.save_desired()
    requeued = _requeue_orphans(town)
    state = town.state.count_heartbeat(town.now())
    town.revision.advance(town.redis)
    delivered = [outcome.result is PokeResult.DELIVERED for outcome in results.values()]
    record_event(
        town.redis, town.keys, EventName.HEARTBEAT, number=state.heartbeat_count,
        started=sum(snapshot.record.started_at > before for snapshot in snapshots),
        to_start=sum(isinstance(decision, StartAgent) for decision in decisions),
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
        snapshots, decisions = observe(town)
        store_observations(town, snapshots)
        _enqueue_starts(town, decisions)
        _release(town, decisions)
        _ask_for_cycles(town, decisions)
    except StateUnknown as error:
        log_event(log, "not_looked", level=logging.WARNING, detail=str(error))
    return requeued


def observe(town: Town) -> tuple[list[AgentSnapshot], list[Decision]]:
    """Take one snapshot of Redis and one of tmux, and decide for each agent. Raises StateUnknown."""
    everyone = list(town.roster().agents.values())
    records, places = town.agents.read_all([agent.address for agent in everyone]), town.places()
    pairs = [
        (agent, record)
        for agent, record in zip(everyone, records, strict=True)
        if places.is_here(record) or places.target_host(agent, record) == town.host
    ]
    agents, now = [agent for agent, _ in pairs], town.now()
    sessions, seen = observe_all(
        town.sessions, pairs, town.profile_of, places, now,
        limit_wait=town.settings.daemon.poke_backoff_max,
    )  # fmt: skip
    snapshots = [
        AgentSnapshot(agent, record, sessions.of(agent, town.sessions.town), seen[agent.address])
        for agent, record in pairs
    ]
    moves = {s.agent.address: places.moves_to(s.agent, s.record, s.session) for s in snapshots}
    live = town.hosts.live() if any(moves.values()) else []
    snapshots = [
        replace(s, moves_to=host) if (host := moves[s.agent.address]) in live else s for s in snapshots
    ]
    if town.is_paused():
        return snapshots, [Skip(agent, SkipKind.LEFT_ALONE, "the town is paused") for agent in agents]
    return snapshots, plan(snapshots, now, town.settings.daemon)


_NOTABLE = frozenset(
    (AgentState.ASKS, AgentState.LIMITED, AgentState.DRAFT, AgentState.ENDED, AgentState.UNKNOWN)
)
"""States that somebody may have to do something about; `ready` and `busy` take turns all day."""


def store_observations(town: Town, snapshots: Sequence[AgentSnapshot]) -> None:
    """Store what is seen of each agent where it has changed, with an event for what a person may care for."""
    with town.redis.pipeline(transaction=False) as pipe:
        for snapshot in snapshots:
            address, seen, before = snapshot.agent.address, snapshot.seen, snapshot.record.state
            if snapshot.record.damage:
                continue
            if changes := seen.changes(snapshot.record):
                town.agents.write(address, changes, pipe=pipe)
            if (
                seen.state is not before
                and {seen.state, before} & _NOTABLE
                and snapshot.record.state_since != ZERO_TIME
            ):
                record_event(
                    pipe, town.keys, EventName.STATE, agent=address, state=seen.state, detail=seen.in_words()
                )
        pipe.execute()


def _release(town: Town, decisions: Sequence[Decision]) -> None:
    """Enqueue a job for each agent whose session here is to end for another host; the job checks it again."""
    moving = [decision.agent for decision in decisions if isinstance(decision, ReleaseAgent)]
    for agent in (*moving, *_left_behind(town)):
        town.queues.enqueue_release(agent, town.host)


def _left_behind(town: Town) -> list[Agent]:
    """The agents with a session here that were started on another living host since."""
    others = set(town.hosts.live()) - {town.host}
    if not others or town.is_paused():
        return []
    # such an agent is not this host's any more: `observe` leaves it out
    sessions, places = town.sessions.snapshot(), town.places()
    pairs = [(agent, sessions.of(agent, town.sessions.town)) for agent in town.roster().agents.values()]
    lives = [(agent, session) for agent, session in pairs if session and session.incarnation]
    records = town.agents.read_all([agent.address for agent, _ in lives])
    return [
        agent
        for (agent, session), record in zip(lives, records, strict=True)
        if record.host in others and places.is_left_behind(session, record)
    ]


def _ask_for_cycles(town: Town, decisions: Sequence[Decision]) -> None:
    """Put a request into the inbox for each agent whose context is full, once per incarnation."""
    for decision in decisions:
        if isinstance(decision, CycleAgent):
            agent, token = decision.agent, decision.session.incarnation
            element = build_element(
                full_context_id(token), LifecycleAction.CYCLE, agent.address, to=None, token=token,
                reason=f"its context is {decision.used} % full", handoff=_handoff(town, decision),
                now=town.now(), clock="redis",
            )  # fmt: skip
            with town.redis.pipeline() as pipe:
                pipe.rpush(town.keys.inbox, element)
                town.agents.write(agent.address, AgentRecord(cycle_asked=token), pipe=pipe)
                pipe.execute()


def _handoff(town: Town, cycle: CycleAgent) -> str:
    """What the successor gets of an agent that could not write its handoff itself."""
    agent = cycle.agent
    tail = town.sessions.capture_screen(cycle.session, _HANDOFF_LINES)
    logs = town.profile_of(agent).logs
    place = f"Its program keeps its log in {logs}.\n" if logs else ""
    return (
        f"Your predecessor's context was {cycle.used} % full, so the daemon asked for this cycle in its "
        f"place.\n{place}The end of its screen:\n\n{tail[-_HANDOFF_CHARS:]}\n"
    )


def _enqueue_starts(town: Town, decisions: Sequence[Decision]) -> None:
    """Enqueue a job for each start that has none yet; the job checks the agent again."""
    starts = [decision for decision in decisions if isinstance(decision, StartAgent)]
    queued = set(town.queues.lifecycle(town.host).job_ids) if starts else set()
    with town.redis.pipeline() as pipe:
        for start in starts:
            if town.queues.start_job_id(start.agent) not in queued:
                town.queues.enqueue_start(replace(start.agent, host=town.host), start.why, pipe)
        pipe.execute()


def poke_all(town: Town, pokes: Sequence[PokeAgent], *, until: float) -> dict[str, PokeOutcome]:
    """Type into all these sessions at once, but not after `until` (epoch seconds of Redis).

    Returns the outcomes by address.
    """
    if not pokes:
        return {}
    keys = {poke.session.key: town.keys.lease(poke.agent.address) for poke in pokes}
    with hold_leases(town.redis, keys, town.host) as free:
        texts = [
            Poke(poke.session, poke.text, town.profile_of(poke.agent), until, poke.limit_over)
            for poke in pokes
            if poke.session.key in free
        ]
        outcomes = town.sessions.poke(texts)
    if town.requests.unsettled():
        # their jobs may have found the leases taken
        for poke in pokes:
            town.enqueue_next(poke.agent.address)
    results = {poke.agent.address: outcomes.get(poke.session.key, _IN_PROGRESS) for poke in pokes}
    now = town.now()
    with town.redis.pipeline() as pipe:
        for poke in pokes:
            outcome = results[poke.agent.address]
            if outcome.result is PokeResult.DELIVERED:
                changes = AgentRecord(last_poke=now, unanswered=poke.unanswered)
                town.agents.write(poke.agent.address, changes, pipe=pipe)
            detail = poke.why if poke.limit_over else ""
            record_event(
                pipe, town.keys, EventName.POKE, agent=poke.agent.address, outcome=str(outcome), detail=detail
            )
        pipe.execute()
    return results


def poke_agent(town: Town, address: str, text: str = "", until: float = math.inf) -> PokeOutcome:
    """Poke one agent now if it is ready, due or not, but not after `until` (epoch seconds).

    An empty text means its own poke.
    """
    if town.now().timestamp() > until:
        return PokeOutcome(PokeResult.HELD, "whoever asked for it waits no longer")
    agent = town.roster().resolve(address)
    session = town.sessions.find(agent)
    if session is None:
        return PokeOutcome(PokeResult.FAILED, "it has no session; `gastown-mail run` starts one")
    message = text or agent.poke
    if not message:
        return PokeOutcome(PokeResult.FAILED, "it has no poke; give a text")
    if town.agents.read(agent.address).desired is Desired.PAUSED or town.is_paused():
        return PokeOutcome(PokeResult.HELD, "paused")
    patience = time.monotonic() + _LEASE_PATIENCE
    while True:
        outcome = poke_all(town, [PokeAgent(agent, session, message, 0)], until=until)[agent.address]
        if outcome != _IN_PROGRESS or time.monotonic() > patience:
            return outcome
        time.sleep(_LEASE_POLL)


def _requeue_orphans(town: Town) -> int:
    """Enqueue every open request that no worker carries out and no queue holds; return how many."""
    received = town.requests.unsettled()
    if not received:
        return 0
    records = dict(zip(received, town.requests.records(list(received)), strict=True))
    addresses = {request_id: r["agent"] for request_id, r in records.items() if r.get("agent")}
    agents, queued = town.placed(set(addresses.values())), set(town.queues.lifecycle(town.host).job_ids)
    unqueued = {
        request_id: address
        for request_id, address in addresses.items()
        if address in agents
        and agents[address].host == town.host
        and town.queues.request_job_id(request_id) not in queued
    }
    free = {
        address
        for address in set(unqueued.values())
        if not is_held(town.redis, town.keys.lease(address), town.host)
    }
    orphans = [request_id for request_id, address in unqueued.items() if address in free]
    for request_id in orphans:
        town.queues.enqueue_request(request_id, agents[addresses[request_id]])
        log_event(log, "requeued", request_id=request_id, agent=addresses[request_id])
    _expire_unserved(town, received, addresses, agents)
    return len(orphans)


def _expire_unserved(
    town: Town, received: dict[str, float], addresses: dict[str, str], agents: Mapping[str, Agent]
) -> None:
    """Settle old requests for agents that no worker of this host serves; workers find the others."""
    now = town.now()
    oldest = now.timestamp() - town.settings.daemon.max_request_age
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
            if isinstance(decision, PokeAgent) or why != snapshot.record.decision:
                town.agents.write(address, AgentRecord(decision=why), pipe=pipe)
        pipe.execute()
