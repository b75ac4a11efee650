"""Carrying out one request: look, decide, write the intent, end the session, start the successor, settle.

Every step checks the current state first and can be repeated: after a crash the next worker resumes.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import Postponed, ProcessesSurvived, StartFailed, StateUnknown
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, LifecycleAction, RequestStatus, full_context_id
from gastown_mail.contracts.private import make_private_dir
from gastown_mail.contracts.request import decode_element
from gastown_mail.lifecycle.decision import (
    AlreadyDone,
    Decision,
    Execute,
    RequestContext,
    Resolve,
    decide,
    overrulers,
)
from gastown_mail.lifecycle.preflight import generation_obstacle, start_obstacle
from gastown_mail.lifecycle.start import SessionStart, record_session, record_spared
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.mail.requests import Progress
from gastown_mail.plumbing.connections import to_fields, to_strs
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.session import Session
from gastown_mail.town.lease import Lease, hold_lease
from gastown_mail.town.records import NOWHERE, AgentRecord, Desired
from gastown_mail.town.town import Town, ensure_running

MAX_ATTEMPTS = 5
"""How often a request may be begun: each attempt beyond the first follows the death of a worker."""

WAITING = "waiting"

_SETTLED_AT_ONCE = 200
"""How many requests one transaction settles."""

_SCREEN_LINES = 50
"""How much of the screen goes into the handoff of an agent that wrote none."""

log = logging.getLogger(__name__)


def carry_out_request(town: Town, request_id: str) -> str:
    """Carry out the request, after settling older ones of its agent; return its status, or `waiting`."""
    record = town.requests.record(request_id)
    address = record.get("agent", "")
    if not record or record.get("status") in FINAL_STATUSES:
        return record.get("status", "unknown")
    with hold_lease(town.redis, town.keys.lease(address), town.host) as lease:
        if lease is None:
            return WAITING
        failpoint("turn-taken")
        try:
            ensure_running(town)
            _settle_pending(town, lease, address)
        except (StateUnknown, Postponed) as error:
            # nothing is killed or started on an unclear state; the sweep enqueues the request again
            why = str(error)
            if town.requests.set_detail(request_id, f"waiting: {why}"):
                record_event(
                    town.redis, town.keys, EventName.POSTPONED, agent=address, request=request_id, detail=why
                )
                log_event(
                    log, "postponed", level=logging.WARNING, request_id=request_id, agent=address, detail=why
                )
            return WAITING
    town.enqueue_next(address)
    return town.requests.record(request_id).get("status", "unknown")


def _settle_pending(town: Town, lease: Lease, address: str) -> None:
    """Settle the agent's open requests, oldest first, until one of them has been acted on."""
    began, agent = time.monotonic(), town.roster().agents.get(address)
    ids = town.requests.pending(address)
    if agent is None and (others := town.directory().others_with(address)):
        raise Postponed(f"host {town.host} does not have {address} in its town.toml, host {others[0]} has")
    contexts = _contexts(town, agent, ids) if agent else {}
    resolved: dict[str, tuple[RequestStatus, str]] = {}
    for request_id in ids:
        if agent is None:
            decision: Decision = Resolve(
                RequestStatus.REFUSED, f"{address} is no longer an agent of this town"
            )
        elif request_id not in contexts:
            decision = Resolve(RequestStatus.FAILED, "what was asked for is no longer in Redis; ask again")
        else:
            decision = _decide_here(town, lease, contexts[request_id])
        if not isinstance(decision, Resolve):
            _settle(town, address, resolved, began)
            began = time.monotonic()
            outcome = _act(town, lease, contexts[request_id], decision)
            _settle(town, address, {request_id: outcome}, began)
            return
        resolved[request_id] = decision.status, decision.detail
    _settle(town, address, resolved, began)


def _settle(town: Town, address: str, ends: Mapping[str, tuple[RequestStatus, str]], began: float) -> None:
    ids = list(ends)
    for first in range(0, len(ids), _SETTLED_AT_ONCE):
        batch = ids[first : first + _SETTLED_AT_ONCE]
        settled = town.requests.settle_all(address, {i: ends[i] for i in batch}, town.now())
        failpoint("settled")
        town.queues.drop_requests(settled, town.host)
        took = round((time.monotonic() - began) * 1000)
        for request_id in settled:
            status, detail = ends[request_id]
            log_event(
                log, "settled", request_id=request_id, agent=address, outcome=status.value, detail=detail,
                took_ms=took,
            )  # fmt: skip


def _contexts(town: Town, agent: Agent, ids: Sequence[str]) -> dict[str, RequestContext]:
    """The context for deciding each request, by id, from one snapshot of the agent."""
    record, session = town.agents.read(agent.address), town.sessions.find(agent)
    if session is None and (unseen := town.places().unseen(record)):
        raise StateUnknown(f"{agent.address} is believed to live {unseen.where}")
    now, settings = town.now(), town.settings.daemon
    progress, records = town.requests.progress_many(ids), town.requests.records(ids)
    contexts = [
        RequestContext(
            id=request_id, request=decode_element(made.element)[1], progress=made,
            asker=public.get("from", ""), agent=agent, record=record, session=session, now=now,
            max_age=timedelta(seconds=settings.max_request_age),
            require_incarnation=settings.require_incarnation,
            received=parse_time(public["received_at"]),
        )
        for request_id, made, public in zip(ids, progress, records, strict=True)
        if made is not None and "received_at" in public
    ]  # fmt: skip
    deciding = overrulers(contexts)
    return {context.id: replace(context, overruled_by=deciding.get(context.id, "")) for context in contexts}


def _decide_here(town: Town, lease: Lease, context: RequestContext) -> Decision:
    """What to do with one request; it is refused if no successor can be started."""
    decision = decide(context)
    if isinstance(decision, Execute) and (
        fault := _Attempt(town, lease, context, decision.target).obstacle()
    ):
        return Resolve(RequestStatus.REFUSED, fault)
    return decision


def _act(
    town: Town, lease: Lease, context: RequestContext, decision: Execute | AlreadyDone
) -> tuple[RequestStatus, str]:
    """Carry out one request; return its final status and the reason."""
    match decision:
        case AlreadyDone(successor):
            if context.record.incarnation != successor.incarnation:
                record_session(town, lease, context.agent, successor, context.id)
            return RequestStatus.DONE, f"started {successor.name}"
        case Execute(target):
            return _Attempt(town, lease, context, target).run()


@dataclass(frozen=True)
class _Attempt:
    """One attempt to carry out a request: end `target` if there is one, then start the successor."""

    town: Town
    lease: Lease
    context: RequestContext
    target: Session | None

    def obstacle(self) -> str | None:
        """Why the successor cannot be started; None when it can, or when the request has been begun."""
        context = self.context
        if not context.wants_successor or context.progress.started_at:
            return None
        history = context.record.start_history
        blocked = history.blocked_reason(context.now) if history.failed else None
        if blocked:
            return (
                f"the last start of {context.agent.address} failed: {blocked}; gastown-mail clear ends that"
            )
        return start_obstacle(self.town, context.agent) or generation_obstacle(
            self.town, context.agent, context.record
        )

    def run(self) -> tuple[RequestStatus, str]:
        """Take all remaining steps; return the final status and its reason."""
        town, context, agent, request = self.town, self.context, self.context.agent, self.context.request
        progress = town.keys.progress(context.id)
        if int(town.redis.hincrby(progress, "tries", 1)) > MAX_ATTEMPTS:
            return RequestStatus.FAILED, f"given up after {MAX_ATTEMPTS} attempts that did not finish"
        if not context.progress.started_at:
            self.write_intent()
        self.lease.ensure_held()
        handoff = self.write_handoff_file()
        asker = "you" if context.asker == agent.address else context.asker
        why = f"{asker} asked for a {request.action.value}"
        if request.incarnation and context.id == full_context_id(request.incarnation):
            # the daemon or a hook asked, in the agent's place
            why = "your last session's context was full"
        if request.reason:
            why += f", in these words: {_in_quotes(request.reason)}"
        try:
            self.end_session()
            if not context.wants_successor:
                self.leave_place()
                return RequestStatus.DONE, f"ended {agent.session}"
            session = SessionStart(
                town, self.lease, agent, why, handoff, left=context.record,
                previous_tokens=context.progress.successors, request=context.id,
                on_new_token=lambda pipe, tokens: pipe.hset(progress, "successors", " ".join(tokens)),
            ).run()  # fmt: skip
        except (StartFailed, ProcessesSurvived) as error:
            town.agents.note_start_fault(agent.address, str(error))
            return RequestStatus.FAILED, str(error)
        return RequestStatus.DONE, f"started {session.name}, pid {session.pid}"

    def write_intent(self) -> None:
        """Record what is about to be done, before any session is touched."""
        town, context, handoff, now = self.town, self.context, self.handoff_text(), self.town.now()
        address, action, session = context.agent.address, context.request.action.value, context.agent.session
        request, progress = town.keys.request(context.id), town.keys.progress(context.id)
        token = self.target.incarnation if self.target else ""
        notes = Progress(started_at=now, target_incarnation=token)
        desired = Desired.RUNNING if context.wants_successor else Desired.STOPPED
        changes = AgentRecord(desired=desired, changed_at=now, successor_owed=context.wants_successor)

        def write(pipe: Any) -> None:
            if to_strs(pipe.hmget(request, ["status"]))[0] in FINAL_STATUSES:
                raise Postponed(f"another worker has settled request {context.id}")
            number = town.revision.next_wish(pipe)
            pipe.multi()
            if handoff:
                pipe.set(town.keys.handoff(address), handoff)
            elif context.wants_successor:
                pipe.delete(town.keys.handoff(address))
            town.agents.write(address, changes.model_copy(update={"wish": number}), pipe=pipe)
            pipe.hset(progress, mapping=to_fields(notes.given_fields()))
            pipe.hset(request, "status", RequestStatus.CARRYING.value)
            record_event(
                pipe, town.keys, EventName.CARRYING, agent=address, request=context.id, action=action,
                session=session,
            )  # fmt: skip

        self.lease.transaction(write, request)
        town.confirm()
        failpoint("intent-written")
        log_event(log, "carrying", request_id=context.id, agent=address, action=action)
        if context.record.desired is not desired and Desired.STOPPED in (context.record.desired, desired):
            town.save_desired(address)

    def leave_place(self) -> None:
        """Record that the agent lives nowhere: any host may start it."""

        def write(pipe: Any) -> None:
            pipe.multi()
            self.town.agents.write(self.context.agent.address, NOWHERE, pipe=pipe)

        self.lease.transaction(write)

    def handoff_text(self) -> str:
        """The agent's own words, else a short note: the asker, the reason, and the end of the screen."""
        context, request = self.context, self.context.request
        if request.action is not LifecycleAction.CYCLE:
            return ""
        if request.handoff:
            return request.handoff
        screen = self.town.sessions.capture_screen(self.target, _SCREEN_LINES) if self.target else ""
        return (
            f"# Handoff for {context.agent.address}\n\nAsked for by: {context.asker}\n"
            f"Reason: {_in_quotes(request.reason) if request.reason else 'none given'}\n\n"
            f"The last {_SCREEN_LINES} lines of the screen:\n\n```\n{screen}\n```\n"
        )

    def write_handoff_file(self) -> Path | None:
        """Write the handoff that Redis holds to its file; without one, remove the file of an earlier cycle.

        Raises StateUnknown when the disk refuses; no session has been touched then.
        """
        town, agent = self.town, self.context.agent
        if not self.context.wants_successor:
            return None
        file, key = town.handoff_file(agent), town.keys.handoff(agent.address)
        stored = town.redis.get(key)
        try:
            make_private_dir(file.parent)
            while True:
                written = stored
                if isinstance(written, bytes):
                    write_atomically(file, written, 0o600)
                    failpoint("handoff-written")
                else:
                    file.unlink(missing_ok=True)
                # a worker that was paused before its write may have overwritten a later handoff
                stored = town.redis.get(key)
                if stored == written:
                    return None if written is None else file
        except OSError as error:
            # no worker died in the middle: this attempt does not count
            town.redis.hincrby(town.keys.progress(self.context.id), "tries", -1)
            raise StateUnknown(
                f"the handoff {file} cannot be written ({error}); fix that, and the request continues"
            ) from error

    def end_session(self) -> None:
        """End the target session, and the processes that earlier attempts left behind."""
        town, agent, progress = self.town, self.context.agent, self.context.progress
        grace, command = agent.stop_grace, agent.command
        spared: list[str] = []
        if self.target is not None:
            spared.append(town.sessions.end(self.target, grace=grace, command=command))
            failpoint("session-ended")
            record_event(
                town.redis, town.keys, EventName.ENDED, agent=agent.address, request=self.context.id,
                session=self.target.name,
            )  # fmt: skip
        failpoint("end-noted")
        # without a session: what a crashed tmux server left running
        gone = self.context.record.incarnation if self.target is None else ""
        for token in filter(None, {progress.target_incarnation, *progress.successors, gone}):
            spared.append(town.sessions.end_orphans(token, grace=grace, command=command))
        record_spared(town, agent, ", ".join(filter(None, spared)), self.context.id)


def _in_quotes(text: str) -> str:
    """Somebody's words as one quoted line, which a reader cannot take for ours."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
