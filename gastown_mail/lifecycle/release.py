"""Moving an agent: its old host ends its session and leaves its place, then the new one starts it."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, Postponed, ProcessesSurvived, StateUnknown
from gastown_mail.lifecycle.start import record_spared
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.sessions.session import Session
from gastown_mail.town.hosts import HostEntry
from gastown_mail.town.lease import Lease, hold_lease
from gastown_mail.town.records import NOWHERE, AgentRecord, Desired, Place
from gastown_mail.town.town import Town, ensure_running


def release_agent(town: Town, address: str) -> str:
    """End the agent's session on this host, if it is to move to another; return what happened."""
    agent = town.roster().resolve(address)
    with hold_lease(town.redis, town.keys.lease(address), town.host) as lease:
        if lease is None:
            return "busy"
        try:
            ensure_running(town)
            return _release(town, lease, agent)
        except (StateUnknown, Postponed, ProcessesSurvived) as error:
            return f"not released: {error}"


def _release(town: Town, lease: Lease, agent: Agent) -> str:
    places, record, session = town.places(), town.agents.read(agent.address), town.sessions.find(agent)
    target = places.moves_to(agent, record, session)
    if not target or record.desired is Desired.PAUSED or town.requests.in_progress(agent.address):
        return "stays"
    if target not in town.hosts.live():
        return f"stays: host {target} is not alive"
    if session is not None and session.incarnation and places.is_left_behind(session, record):
        _end(town, agent, session, f"it lives on host {target} now")
        return "ended a session that was left behind"
    if session is None and (unseen := places.unseen(record)):
        return f"not released: it is believed to live {unseen.where}"
    runs = session is not None and bool(session.incarnation) and not session.dead
    if session is not None and session.incarnation:
        _end(town, agent, session, f"it moves to host {target}")
    elif record.incarnation:
        grace, command = agent.stop_grace, agent.command
        record_spared(
            town, agent, town.sessions.end_orphans(record.incarnation, grace=grace, command=command)
        )
    owed = record.desired is not Desired.STOPPED and (runs or record.successor_owed)

    def write(pipe: Any) -> None:
        pipe.multi()
        town.agents.write(agent.address, AgentRecord(successor_owed=owed), NOWHERE, pipe=pipe)
        detail = f"from host {town.host} to host {target}"
        record_event(pipe, town.keys, EventName.RELEASED, agent=agent.address, detail=detail)

    lease.transaction(write)
    if owed:
        there = replace(agent, host=target)
        town.queues.enqueue_start(there, f"it has moved here from host {town.host}")
    return f"released to host {target}"


def _end(town: Town, agent: Agent, session: Session, why: str) -> None:
    # the decision is on record before the act
    record_event(town.redis, town.keys, EventName.RELEASING, agent=agent.address, detail=why)
    spared = town.sessions.end(session, grace=agent.stop_grace, command=agent.command)
    record_spared(town, agent, spared)


def move_agent(town: Town, agent: Agent, host: str, *, from_dead: bool = False) -> str:
    """Give the agent to another host, because an operator says so; return what happens next.

    `from_dead`: the host that has it is dead; its place is taken for dead too. Raises GastownError when
    town.toml names another host, or `from_dead` is not true as far as anyone knows.
    """
    record = town.agents.read(agent.address)
    if agent.declared_host not in ("", host):
        then = "run this again" if from_dead else "it moves by itself"
        raise GastownError(
            f'town.toml gives {agent.address} host = "{agent.declared_host}": write "{host}" there, on all '
            f"living hosts; then {then}"
        )
    live = town.hosts.live_entries()
    if host not in live:
        raise GastownError(f"no daemon serves host {host}; alive: {', '.join(live) or 'none'}")
    lives_on = "" if town.places().is_empty(record) else record.host
    is_replaced = lives_on == host and _is_elsewhere(record, live[host])
    if is_replaced and not from_dead:
        raise GastownError(
            f"{agent.address} is believed to live on another machine or folder that was host {host}: if that "
            "is lost for good, run this again with --from-dead"
        )
    changes: list[Place] = [AgentRecord(assigned=host)]
    if from_dead:
        if not is_replaced:
            _check_dead(agent, lives_on, host, live)
        owed = record.desired is not Desired.STOPPED
        changes = [AgentRecord(assigned=host, successor_owed=owed), NOWHERE]
    with hold_lease(town.redis, town.keys.lease(agent.address), town.host) as lease:
        if lease is None:
            raise GastownError(f"another operation on {agent.address} is in progress; try again")

        def write(pipe: Any) -> None:
            pipe.multi()
            town.agents.write(agent.address, *changes, pipe=pipe)
            dead = f"; host {lives_on} is dead, an operator says" if from_dead else ""
            detail = f"to host {host}{dead}"
            record_event(pipe, town.keys, EventName.MOVED, agent=agent.address, detail=detail)

        lease.transaction(write)
    if lives_on not in ("", host) and not from_dead:
        town.queues.enqueue_release(agent, lives_on)
        return f"host {lives_on} releases it, then host {host} starts it; gastown-mail status shows when"
    if from_dead and owed:
        town.queues.enqueue_start(
            replace(agent, host=host), f"it has moved here from the dead host {lives_on}"
        )
    return f"it belongs to host {host} now"


def _is_elsewhere(record: AgentRecord, entry: HostEntry) -> bool:
    """Whether the agent on record lives on another machine than the one that serves its host now."""
    return bool(record.machine) and entry.machine not in ("", record.machine)


def _check_dead(agent: Agent, lives_on: str, host: str, live: Collection[str]) -> None:
    if lives_on in ("", host):
        raise GastownError(f"{agent.address} lives on no other host: move it without --from-dead")
    if lives_on in live:
        raise GastownError(f"host {lives_on} is alive: move {agent.address} without --from-dead")
