"""What to do with a request that is next for its agent: a pure decision on what is known at that moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import format_elapsed
from gastown_mail.contracts.lifecycle import OPERATOR, LifecycleAction, RequestStatus
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.mail.requests import Progress
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import AgentRecord, Desired

_UNKNOWN = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class RequestContext:
    """Everything a decision depends on. `overruled_by`: the id of a later request that decides instead."""

    id: str
    request: LifecycleRequest
    progress: Progress
    asker: str
    agent: Agent
    record: AgentRecord
    session: Session | None
    now: datetime
    max_age: timedelta
    overruled_by: str = ""
    require_incarnation: bool = False
    received: datetime = _UNKNOWN

    @property
    def effective_time(self) -> datetime:
        """The latest time at which the request can have been made; reviving it counts as making it.

        By the clock of Redis: the sender's may be ahead of it, or behind.
        """
        if self.progress.revived_at:
            return self.progress.revived_at
        try:
            written = self.request.latest_timestamp - timedelta(seconds=self.progress.sender_ahead)
        except OverflowError:
            written = self.request.latest_timestamp
        return min(written, self.received)

    @property
    def wants_successor(self) -> bool:
        """Whether a session is to be started after the old one has ended."""
        return self.request.action is not LifecycleAction.SHUTDOWN


@dataclass(frozen=True)
class Resolve:
    """Settle the request without touching any session."""

    status: RequestStatus
    detail: str


@dataclass(frozen=True)
class Execute:
    """Carry it out: end `target` if there is one, then start a successor unless it is a shutdown."""

    target: Session | None


@dataclass(frozen=True)
class AlreadyDone:
    """An earlier attempt has started this successor."""

    successor: Session


Decision = Resolve | Execute | AlreadyDone


def decide(context: RequestContext) -> Decision:
    """Decide on a request (docs/reference/contract.md#lifecycle-request, docs/why.md#the-fence)."""
    session, progress = context.session, context.progress
    if not progress.started_at:
        return _rejected(context) or _overruled(context) or Execute(session)
    # an earlier attempt recorded its intent and died: do what it meant to do and nothing else
    if session is None or (session.incarnation and session.incarnation == progress.target_incarnation):
        return Execute(session)
    if session.incarnation in progress.successors:
        return Execute(session) if session.dead else AlreadyDone(session)
    return _superseded("another session has taken its place")


def _rejected(context: RequestContext) -> Resolve | None:
    """Why it is not carried out, whatever else is pending."""
    agent, progress = context.agent, context.progress
    age = context.now - context.effective_time
    if age > context.max_age:
        detail = f"asked for {format_elapsed(age.total_seconds())} ago; revive it if still meant"
        return Resolve(RequestStatus.EXPIRED, detail)
    if context.record.desired is Desired.PAUSED:
        return _refused(f"{agent.address} is paused; resume it and revive the request")
    if context.require_incarnation and not progress.trusted:
        if context.asker == OPERATOR:
            return _refused("the operator may not use the inbox of this town; use gastown-mail send")
        own = context.asker == agent.address
        if not context.request.incarnation or not (own or progress.sender_verified):
            return _refused(f"{context.asker} did not give the incarnation of its session")
    return _wrong_session(context)


def _wrong_session(context: RequestContext) -> Resolve | None:
    """Why the live session is not the one that was meant; None when it is."""
    session, token = context.session, context.request.incarnation or ""
    if session is None:
        if context.asker == context.agent.address:
            return _superseded("its session is gone")
        if context.wants_successor and context.record.changed_at > context.effective_time:
            return _superseded("its session has been ended or replaced since")
        return None
    if not session.incarnation:
        return _refused(f"the session {session.name} is not managed; `gastown-mail adopt` takes it over")
    if token == session.incarnation:
        return None
    if token and not context.progress.sender_verified:
        return _superseded("its session has been replaced")
    if session.started_at > context.effective_time:
        return _superseded("the session was started after the request")
    return None


def _overruled(context: RequestContext) -> Resolve | None:
    """A shutdown is overruled by nothing."""
    if not context.wants_successor or not context.overruled_by:
        return None
    return _superseded(f"request {context.overruled_by} decides")


def overrulers(waiting: Sequence[RequestContext]) -> Mapping[str, str]:
    """Which later request decides instead of each of these, oldest first, by id.

    Of several that are meant for this session the last one decides; a shutdown beats all others.
    """
    found: dict[str, str] = {}
    last = last_shutdown = ""
    for context in reversed(waiting):
        if deciding := last_shutdown or last:
            found[context.id] = deciding
        if (last and last_shutdown) or _rejected(context):
            continue
        last = last or context.id
        if not context.wants_successor:
            last_shutdown = last_shutdown or context.id
    return found


def is_authorized(asker: str, agent: Agent) -> bool:
    """Whether `asker` may ask for this agent (docs/reference/contract.md#who-may-ask)."""
    return asker in {agent.address, "mayor/", "deacon/", OPERATOR} or (
        bool(agent.rig) and asker == f"{agent.rig}/witness"
    )


def _superseded(detail: str) -> Resolve:
    return Resolve(RequestStatus.SUPERSEDED, detail)


def _refused(detail: str) -> Resolve:
    return Resolve(RequestStatus.REFUSED, detail)
