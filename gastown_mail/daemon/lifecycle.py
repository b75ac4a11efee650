"""Carrying out one request: look, judge, write down the intent, end the session, start the successor, settle.

Every step looks at the world first and can be run again: whoever dies in between, the next one goes on.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import ProcessesSurvived, StartFailed, StateUnknown
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, RequestStatus
from gastown_mail.contracts.request import decode_element
from gastown_mail.daemon.clerk import enqueue
from gastown_mail.daemon.handoff import handoff_text, write_handoff_file
from gastown_mail.daemon.record import Desired
from gastown_mail.daemon.starting import Launch, preflight, search_path, write_down
from gastown_mail.daemon.town import Town
from gastown_mail.daemon.turn import Turn, turn
from gastown_mail.daemon.verdict import Carry, Case, Finished, Settle, decide
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.answers import to_fields, to_strs
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.session import Session

MOST_TRIES = 5
"""How often a request may be begun: each try beyond the first follows the death of a worker."""

WAITING = "waiting"

log = logging.getLogger(__name__)


def carry_out(town: Town, request_id: str) -> str:
    """Carry out the request, and first settle older ones of its agent; return its status, or `waiting`."""
    record = town.requests.record(request_id)
    address = record.get("agent", "")
    if not record or record.get("status") in FINAL_STATUSES:
        return record.get("status", "unknown")
    with turn(town.redis, town.keys.lease(address), town.host) as right:
        if right is None:
            return WAITING
        failpoint("turn-taken")
        try:
            town.require_go()
            _serve(town, right, address)
        except StateUnknown as error:
            _postpone(town, request_id, address, str(error))
            return WAITING
    wake_next(town, address)
    return town.requests.record(request_id).get("status", "unknown")


def _serve(town: Town, right: Turn, address: str) -> None:
    """Settle the agent's waiting requests, oldest first, until one of them has been acted on."""
    agent = town.roster().agents.get(address)
    ids = town.requests.pending(address)
    cases = _cases(town, agent, ids) if agent else {}
    for request_id in ids:
        began = time.monotonic()
        case = cases.get(request_id)
        status, detail, acted = _settle_one(town, right, case) if case else (*_lost(address, agent), False)
        town.requests.settle(request_id, address, status, detail, datetime.now(UTC))
        failpoint("settled")
        log_event(log, "settled", request_id=request_id, agent=address, outcome=status.value, detail=detail,
            took_ms=round((time.monotonic() - began) * 1000))  # fmt: skip
        if acted:
            return


def _lost(address: str, agent: Agent | None) -> tuple[RequestStatus, str]:
    """What becomes of a request about which too little is known."""
    if agent is None:
        return RequestStatus.REFUSED, f"{address} is no longer an agent of this town"
    return RequestStatus.FAILED, "what was asked for is no longer in Redis; ask again"


def _settle_one(town: Town, right: Turn, case: Case) -> tuple[RequestStatus, str, bool]:
    """The final status of one request, its reason, and whether anybody was touched."""
    match decide(case):
        case Settle(status, detail):
            return status, detail, False
        case Finished(successor):
            if case.record.incarnation != successor.incarnation:
                write_down(town, right, case.agent, successor, case.id)
            return RequestStatus.DONE, f"started {successor.name}", True
        case Carry(victim):
            if fault := _unstartable(town, case):
                return RequestStatus.REFUSED, fault, False
            return *_act(town, right, case, victim), True


def _unstartable(town: Town, case: Case) -> str | None:
    """Why its successor cannot be started, None when nothing speaks against it or it is begun already."""
    if not case.starts or case.work.started_at:
        return None
    gate = case.record.gate
    waits = gate.blocked_reason(case.now.timestamp()) if gate.failed else None
    if waits:
        return f"the last start of {case.agent.address} failed: {waits}; gastown-mail clear ends that"
    return preflight(case.agent, town.settings.town_root, search_path())


def _cases(town: Town, agent: Agent, ids: Sequence[str]) -> dict[str, Case]:
    """All that decides about these requests, by id, from one look at the agent."""
    record, session, now = (
        town.agents.read(agent.address),
        town.sessions.find(agent.session),
        datetime.now(UTC),
    )
    works, askers = town.requests.progress_many(ids), [r.get("from", "") for r in town.requests.records(ids)]
    ours = town.settings.daemon
    cases = [
        Case(
            id=request_id, request=decode_element(work.element)[1], work=work, asker=asker, agent=agent,
            record=record, session=session, now=now, max_age=timedelta(seconds=ours.max_request_age),
            require_incarnation=ours.require_incarnation,
        )
        for request_id, work, asker in zip(ids, works, askers, strict=True)
        if work is not None
    ]  # fmt: skip
    return {case.id: replace(case, others=cases) for case in cases}


def _act(town: Town, right: Turn, case: Case, victim: Session | None) -> tuple[RequestStatus, str]:
    work = town.keys.progress(case.id)
    tries = int(town.redis.hincrby(work, "tries", 1))
    if tries > MOST_TRIES:
        return RequestStatus.FAILED, f"given up after {MOST_TRIES} tries that ended in the middle"
    if not case.work.started_at:
        _begin(town, right, case, victim)
    right.require()
    handoff = write_handoff_file(town, case)
    try:
        _end(town, case, victim)
        if not case.starts:
            return RequestStatus.DONE, f"ended {case.agent.session}"
        session = Launch(
            town, right, case.agent, _why(case), handoff, earlier=case.work.successors,
            request=case.id,
            announce=lambda pipe, tokens: pipe.hset(work, "successors", " ".join(tokens)),
        ).run()  # fmt: skip
    except (StartFailed, ProcessesSurvived) as error:
        return RequestStatus.FAILED, str(error)
    return RequestStatus.DONE, f"started {session.name}, pid {session.pid}"


def _begin(town: Town, right: Turn, case: Case, victim: Session | None) -> None:
    """Write down what is about to be done, before anybody is touched."""
    text, now, address = handoff_text(town, case, victim), datetime.now(UTC), case.agent.address
    request, work = town.keys.request(case.id), town.keys.progress(case.id)
    notes = {"begun_at": now.timestamp(), "victim": victim.incarnation if victim else ""}
    desired, owed = (Desired.RUNNING, "true") if case.starts else (Desired.STOPPED, "false")

    def write(pipe: Any) -> None:
        if to_strs(pipe.hmget(request, ["status"]))[0] in FINAL_STATUSES:
            raise StateUnknown(f"request {case.id} has been settled by somebody else")
        pipe.multi()
        if text:
            pipe.set(town.keys.handoff(address), text)
        elif case.starts:
            pipe.delete(town.keys.handoff(address))
        town.agents.write(address, pipe=pipe, desired=desired.value, changed_at=now, owed=owed)
        pipe.hset(work, mapping=to_fields(notes))
        pipe.hset(request, "status", RequestStatus.CARRYING.value)
        record_event(pipe, town.keys, "carrying", agent=address, request=case.id,
             action=case.request.action.value, session=case.agent.session)  # fmt: skip

    right.write(write, request)
    failpoint("intent-written")
    log_event(log, "carrying", request_id=case.id, agent=address, action=case.request.action.value)
    if case.record.desired is not desired and Desired.STOPPED in (case.record.desired, desired):
        town.keep_desired(address)


def _end(town: Town, case: Case, victim: Session | None) -> None:
    """End the victim, and what an earlier try that died has left of anybody."""
    grace = case.agent.stop_grace
    if victim is not None:
        town.sessions.end(victim, grace=grace)
        failpoint("session-ended")
        record_event(
            town.redis, town.keys, "ended", agent=case.agent.address, request=case.id, session=victim.name
        )
    failpoint("end-noted")
    # Without a session: what a tmux server that crashed has left running.
    gone = case.record.incarnation if victim is None else ""
    for token in filter(None, {case.work.target_incarnation, *case.work.successors, gone}):
        town.sessions.end_orphans(token, grace=grace)


def _why(case: Case) -> str:
    who = "you" if case.asker == case.agent.address else case.asker
    reason = f" ({case.request.reason})" if case.request.reason else ""
    return f"{who} asked for a {case.request.action.value}{reason}"


def _postpone(town: Town, request_id: str, address: str, reason: str) -> None:
    """Nobody is killed and nobody is started on a world that did not answer; the sweep comes back to it."""
    town.requests.set_detail(request_id, f"waiting: {reason}")
    record_event(town.redis, town.keys, "postponed", agent=address, request=request_id, detail=reason)
    log_event(log, "postponed", level=logging.WARNING, request_id=request_id, agent=address, detail=reason)


def begun(town: Town, address: str) -> str | None:
    """The request that somebody began to carry out and has not settled, None when there is none."""
    ids = town.requests.pending(address)
    works = zip(ids, town.requests.progress_many(ids), strict=True)
    return next((ident for ident, work in works if work and work.started_at), None)


def wake_next(town: Town, address: str) -> None:
    """A request that came while the turn was taken had its job go away empty-handed: put it again."""
    waiting = town.requests.pending(address)
    agent = town.roster().agents.get(address)
    if waiting and agent:
        enqueue(town, waiting[0], agent)
