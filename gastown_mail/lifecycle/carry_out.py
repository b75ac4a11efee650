"""Carrying out one request: look, judge, write down the intent, end the session, start the successor, settle.

Every step looks at the world first and can be run again: whoever dies in between, the next one goes on.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import ProcessesSurvived, StartFailed, StateUnknown
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, RequestStatus
from gastown_mail.contracts.request import decode_element
from gastown_mail.lifecycle.decision import AlreadyDone, Execute, RequestContext, Resolve, decide
from gastown_mail.lifecycle.handoff import handoff_text, write_handoff_file
from gastown_mail.lifecycle.start import SessionStart, preflight, record_session, search_path
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.connections import to_fields, to_strs
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.session import Session
from gastown_mail.town.lease import Lease, hold_lease
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town

MAX_ATTEMPTS = 5
"""How often a request may be begun: each try beyond the first follows the death of a worker."""

WAITING = "waiting"

log = logging.getLogger(__name__)


def carry_out_request(town: Town, request_id: str) -> str:
    """Carry out the request, and first settle older ones of its agent; return its status, or `waiting`."""
    record = town.requests.record(request_id)
    address = record.get("agent", "")
    if not record or record.get("status") in FINAL_STATUSES:
        return record.get("status", "unknown")
    with hold_lease(town.redis, town.keys.lease(address), town.host) as lease:
        if lease is None:
            return WAITING
        failpoint("turn-taken")
        try:
            town.ensure_running()
            _settle_pending(town, lease, address)
        except StateUnknown as error:
            _postpone(town, request_id, address, str(error))
            return WAITING
    town.enqueue_next(address)
    return town.requests.record(request_id).get("status", "unknown")


def _settle_pending(town: Town, lease: Lease, address: str) -> None:
    """Settle the agent's waiting requests, oldest first, until one of them has been acted on."""
    agent = town.roster().agents.get(address)
    ids = town.requests.pending(address)
    contexts = _contexts(town, agent, ids) if agent else {}
    for request_id in ids:
        began = time.monotonic()
        context = contexts.get(request_id)
        status, detail, acted = (
            _settle_one(town, lease, context) if context else (*_unresolvable(address, agent), False)
        )
        town.requests.settle(request_id, address, status, detail, datetime.now(UTC))
        failpoint("settled")
        log_event(log, "settled", request_id=request_id, agent=address, outcome=status.value, detail=detail,
            took_ms=round((time.monotonic() - began) * 1000))  # fmt: skip
        if acted:
            return


def _unresolvable(address: str, agent: Agent | None) -> tuple[RequestStatus, str]:
    """What becomes of a request about which too little is known."""
    if agent is None:
        return RequestStatus.REFUSED, f"{address} is no longer an agent of this town"
    return RequestStatus.FAILED, "what was asked for is no longer in Redis; ask again"


def _settle_one(town: Town, lease: Lease, context: RequestContext) -> tuple[RequestStatus, str, bool]:
    """The final status of one request, its reason, and whether anybody was touched."""
    match decide(context):
        case Resolve(status, detail):
            return status, detail, False
        case AlreadyDone(successor):
            if context.record.incarnation != successor.incarnation:
                record_session(town, lease, context.agent, successor, context.id)
            return RequestStatus.DONE, f"started {successor.name}", True
        case Execute(victim):
            if fault := _unstartable(town, context):
                return RequestStatus.REFUSED, fault, False
            return *_execute(town, lease, context, victim), True


def _unstartable(town: Town, context: RequestContext) -> str | None:
    """Why its successor cannot be started, None when nothing speaks against it or it is begun already."""
    if not context.wants_successor or context.work.started_at:
        return None
    gate = context.record.gate
    waits = gate.blocked_reason(context.now.timestamp()) if gate.failed else None
    if waits:
        return f"the last start of {context.agent.address} failed: {waits}; gastown-mail clear ends that"
    return preflight(context.agent, town.settings.town_root, search_path())


def _contexts(town: Town, agent: Agent, ids: Sequence[str]) -> dict[str, RequestContext]:
    """All that decides about these requests, by id, from one look at the agent."""
    record, session, now = (
        town.agents.read(agent.address),
        town.sessions.find(agent.session),
        datetime.now(UTC),
    )
    works, askers = town.requests.progress_many(ids), [r.get("from", "") for r in town.requests.records(ids)]
    ours = town.settings.daemon
    contexts = [
        RequestContext(
            id=request_id, request=decode_element(work.element)[1], work=work, asker=asker, agent=agent,
            record=record, session=session, now=now, max_age=timedelta(seconds=ours.max_request_age),
            require_incarnation=ours.require_incarnation,
        )
        for request_id, work, asker in zip(ids, works, askers, strict=True)
        if work is not None
    ]  # fmt: skip
    return {case.id: replace(case, pending=contexts) for case in contexts}


def _execute(
    town: Town, lease: Lease, context: RequestContext, target: Session | None
) -> tuple[RequestStatus, str]:
    work = town.keys.progress(context.id)
    tries = int(town.redis.hincrby(work, "tries", 1))
    if tries > MAX_ATTEMPTS:
        return RequestStatus.FAILED, f"given up after {MAX_ATTEMPTS} tries that ended in the middle"
    if not context.work.started_at:
        _write_intent(town, lease, context, target)
    lease.ensure_held()
    handoff = write_handoff_file(town, context)
    try:
        _end_session(town, context, target)
        if not context.wants_successor:
            return RequestStatus.DONE, f"ended {context.agent.session}"
        session = SessionStart(
            town, lease, context.agent, _why(context), handoff, previous_tokens=context.work.successors,
            request=context.id,
            on_new_token=lambda pipe, tokens: pipe.hset(work, "successors", " ".join(tokens)),
        ).run()  # fmt: skip
    except (StartFailed, ProcessesSurvived) as error:
        return RequestStatus.FAILED, str(error)
    return RequestStatus.DONE, f"started {session.name}, pid {session.pid}"


def _write_intent(town: Town, lease: Lease, context: RequestContext, target: Session | None) -> None:
    """Write down what is about to be done, before anybody is touched."""
    text, now, address = handoff_text(town, context, target), datetime.now(UTC), context.agent.address
    request, work = town.keys.request(context.id), town.keys.progress(context.id)
    notes = {"begun_at": now.timestamp(), "victim": target.incarnation if target else ""}
    desired, owed = (Desired.RUNNING, "true") if context.wants_successor else (Desired.STOPPED, "false")

    def write(pipe: Any) -> None:
        if to_strs(pipe.hmget(request, ["status"]))[0] in FINAL_STATUSES:
            raise StateUnknown(f"request {context.id} has been settled by somebody else")
        pipe.multi()
        if text:
            pipe.set(town.keys.handoff(address), text)
        elif context.wants_successor:
            pipe.delete(town.keys.handoff(address))
        town.agents.write(address, pipe=pipe, desired=desired.value, changed_at=now, owed=owed)
        pipe.hset(work, mapping=to_fields(notes))
        pipe.hset(request, "status", RequestStatus.CARRYING.value)
        record_event(pipe, town.keys, "carrying", agent=address, request=context.id,
             action=context.request.action.value, session=context.agent.session)  # fmt: skip

    lease.transaction(write, request)
    failpoint("intent-written")
    log_event(log, "carrying", request_id=context.id, agent=address, action=context.request.action.value)
    if context.record.desired is not desired and Desired.STOPPED in (context.record.desired, desired):
        town.save_desired(address)


def _end_session(town: Town, context: RequestContext, target: Session | None) -> None:
    """End the victim, and what an earlier try that died has left of anybody."""
    grace = context.agent.stop_grace
    if target is not None:
        town.sessions.end(target, grace=grace)
        failpoint("session-ended")
        record_event(
            town.redis,
            town.keys,
            "ended",
            agent=context.agent.address,
            request=context.id,
            session=target.name,
        )
    failpoint("end-noted")
    # Without a session: what a tmux server that crashed has left running.
    gone = context.record.incarnation if target is None else ""
    for token in filter(None, {context.work.target_incarnation, *context.work.successors, gone}):
        town.sessions.end_orphans(token, grace=grace)


def _why(context: RequestContext) -> str:
    who = "you" if context.asker == context.agent.address else context.asker
    reason = f" ({context.request.reason})" if context.request.reason else ""
    return f"{who} asked for a {context.request.action.value}{reason}"


def _postpone(town: Town, request_id: str, address: str, reason: str) -> None:
    """Nobody is killed and nobody is started on a world that did not answer; the sweep comes back to it."""
    town.requests.set_detail(request_id, f"waiting: {reason}")
    record_event(town.redis, town.keys, "postponed", agent=address, request=request_id, detail=reason)
    log_event(log, "postponed", level=logging.WARNING, request_id=request_id, agent=address, detail=reason)
