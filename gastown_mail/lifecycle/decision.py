"""What is to be done with a request whose turn has come: a pure decision on what is known just then."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.lifecycle import OPERATOR, LifecycleAction, RequestStatus
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.mail.requests import Progress
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import AgentRecord, Desired


@dataclass(frozen=True)
class RequestContext:
    """All that decides. `others`: the agent's waiting requests, oldest first, this one among them."""

    id: str
    request: LifecycleRequest
    progress: Progress
    asker: str
    agent: Agent
    record: AgentRecord
    session: Session | None
    now: datetime
    max_age: timedelta
    pending: Sequence["RequestContext"] = field(default=())
    require_incarnation: bool = False

    @property
    def effective_time(self) -> datetime:
        """The latest moment at which it may have been asked for; a revived request counts as asked anew."""
        if self.progress.revived_at:
            return datetime.fromtimestamp(self.progress.revived_at, UTC)
        return self.request.latest_timestamp

    @property
    def wants_successor(self) -> bool:
        """Does it want a successor?"""
        return self.request.action is not LifecycleAction.SHUTDOWN


@dataclass(frozen=True)
class Resolve:
    """Nobody is touched: the request ends here."""

    status: RequestStatus
    detail: str


@dataclass(frozen=True)
class Execute:
    """Carry it out: end `victim` if there is one, then start a successor unless it is a shutdown."""

    target: Session | None


@dataclass(frozen=True)
class AlreadyDone:
    """An earlier try has started this successor already."""

    successor: Session


Decision = Resolve | Execute | AlreadyDone


def decide(context: RequestContext) -> Decision:
    """The verdict on a request, by the rules of CONTRACTS section 2 and of the fence (DESIGN)."""
    if context.progress.started_at:
        return _resume(context)
    return _rejected(context) or _overruled(context) or Execute(context.session)


def _resume(context: RequestContext) -> Decision:
    """An earlier try wrote down its intent and died: only what it meant to do is done."""
    session = context.session
    if session is None or (
        session.incarnation and session.incarnation == context.progress.target_incarnation
    ):
        return Execute(session)
    if session.incarnation in context.progress.successors:
        return Execute(session) if session.dead else AlreadyDone(session)
    return _superseded("another session has taken its place meanwhile")


def _rejected(context: RequestContext) -> Resolve | None:
    """Why it is not carried out, whatever else waits."""
    return _expired_or_paused(context) or _unverified(context) or _wrong_session(context)


def _expired_or_paused(context: RequestContext) -> Resolve | None:
    age = context.now - context.effective_time
    if age > context.max_age:
        return Resolve(
            RequestStatus.EXPIRED, f"asked for {age.total_seconds():.0f} s ago; revive it if still meant"
        )
    if context.record.desired is Desired.PAUSED:
        return Resolve(
            RequestStatus.REFUSED, f"{context.agent.address} is paused; resume it and revive the request"
        )
    return None


def _unverified(context: RequestContext) -> Resolve | None:
    """With `require_incarnation` an agent proves itself by its token, and nobody speaks as the operator."""
    if not context.require_incarnation or context.progress.trusted:
        return None
    if context.asker == OPERATOR:
        return Resolve(
            RequestStatus.REFUSED, "operator may not ask through the inbox here; use gastown-mail send"
        )
    token = context.request.incarnation
    if not token or (context.asker != context.agent.address and not context.progress.sender_verified):
        return Resolve(
            RequestStatus.REFUSED, f"{context.asker} did not prove itself with its session's incarnation"
        )
    return None


def _overruled(context: RequestContext) -> Resolve | None:
    """Of several waiting requests that are meant for this session the last decides; shutdown beats all."""
    if not context.wants_successor:
        return None
    ids = [other.id for other in context.pending]
    later = context.pending[ids.index(context.id) + 1 :] if context.id in ids else []
    meant = [other for other in later if not _rejected(other)]
    deciding = [other.id for other in meant if not other.wants_successor] or [other.id for other in meant]
    return _superseded(f"request {deciding[-1]} decides") if deciding else None


def _wrong_session(context: RequestContext) -> Resolve | None:
    """Is the session that is meant the one that lives now?"""
    session, token = context.session, context.request.incarnation or ""
    if session is None:
        return _absent(context)
    if not session.incarnation:
        reason = f"the session {session.name} is not ours; `gastown-mail adopt` would make it so"
        return Resolve(RequestStatus.REFUSED, reason)
    if token == session.incarnation:
        return None
    if token and not context.progress.sender_verified:
        return _superseded("its session has been replaced")
    if _moment(session.started_at) > context.effective_time:
        return _superseded("the session was started after the request")
    return None


def _absent(context: RequestContext) -> Resolve | None:
    if context.asker == context.agent.address:
        return _superseded("its session is gone")
    if context.wants_successor and context.record.changed_at > context.effective_time:
        return _superseded("its session has been ended or replaced since")
    return None


def is_authorized(asker: str, agent: Agent) -> bool:
    """Who may ask for whom (CONTRACTS section 2)."""
    return asker in {agent.address, "mayor/", "deacon/", OPERATOR} or (
        bool(agent.rig) and asker == f"{agent.rig}/witness"
    )


def _superseded(detail: str) -> Resolve:
    return Resolve(RequestStatus.SUPERSEDED, detail)


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
