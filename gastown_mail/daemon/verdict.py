"""What is to be done with a request whose turn has come: a pure decision on what is known just then."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.lifecycle import OPERATOR, LifecycleAction, RequestStatus
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.daemon.record import AgentRecord, Desired
from gastown_mail.mail.requests import Progress
from gastown_mail.sessions.session import Session


@dataclass(frozen=True)
class Case:
    """All that decides. `others`: the agent's waiting requests, oldest first, this one among them."""

    id: str
    request: LifecycleRequest
    work: Progress
    asker: str
    agent: Agent
    record: AgentRecord
    session: Session | None
    now: datetime
    max_age: timedelta
    others: Sequence["Case"] = field(default=())
    require_incarnation: bool = False

    @property
    def meant_at(self) -> datetime:
        """The latest moment at which it may have been asked for; a revived request counts as asked anew."""
        if self.work.revived_at:
            return datetime.fromtimestamp(self.work.revived_at, UTC)
        return self.request.latest_timestamp

    @property
    def starts(self) -> bool:
        """Does it want a successor?"""
        return self.request.action is not LifecycleAction.SHUTDOWN


@dataclass(frozen=True)
class Settle:
    """Nobody is touched: the request ends here."""

    status: RequestStatus
    detail: str


@dataclass(frozen=True)
class Carry:
    """Carry it out: end `victim` if there is one, then start a successor unless it is a shutdown."""

    victim: Session | None


@dataclass(frozen=True)
class Finished:
    """An earlier try has started this successor already."""

    successor: Session


Verdict = Settle | Carry | Finished


def decide(case: Case) -> Verdict:
    """The verdict on a request, by the rules of CONTRACTS section 2 and of the fence (DESIGN)."""
    if case.work.started_at:
        return _go_on(case)
    return _unfit(case) or _overruled(case) or Carry(case.session)


def _go_on(case: Case) -> Verdict:
    """An earlier try wrote down its intent and died: only what it meant to do is done."""
    session = case.session
    if session is None or (session.incarnation and session.incarnation == case.work.target_incarnation):
        return Carry(session)
    if session.incarnation in case.work.successors:
        return Carry(session) if session.dead else Finished(session)
    return _superseded("another session has taken its place meanwhile")


def _unfit(case: Case) -> Settle | None:
    """Why it is not carried out, whatever else waits."""
    return _too_late(case) or _unproven(case) or _unmeant(case)


def _too_late(case: Case) -> Settle | None:
    age = case.now - case.meant_at
    if age > case.max_age:
        return Settle(
            RequestStatus.EXPIRED, f"asked for {age.total_seconds():.0f} s ago; revive it if still meant"
        )
    if case.record.desired is Desired.PAUSED:
        return Settle(
            RequestStatus.REFUSED, f"{case.agent.address} is paused; resume it and revive the request"
        )
    return None


def _unproven(case: Case) -> Settle | None:
    """With `require_incarnation` an agent proves itself by its token, and nobody speaks as the operator."""
    if not case.require_incarnation or case.work.trusted:
        return None
    if case.asker == OPERATOR:
        return Settle(
            RequestStatus.REFUSED, "operator may not ask through the inbox here; use gastown-mail send"
        )
    token = case.request.incarnation
    if not token or (case.asker != case.agent.address and not case.work.sender_verified):
        return Settle(
            RequestStatus.REFUSED, f"{case.asker} did not prove itself with its session's incarnation"
        )
    return None


def _overruled(case: Case) -> Settle | None:
    """Of several waiting requests that are meant for this session the last decides; shutdown beats all."""
    if not case.starts:
        return None
    ids = [other.id for other in case.others]
    later = case.others[ids.index(case.id) + 1 :] if case.id in ids else []
    meant = [other for other in later if not _unfit(other)]
    deciding = [other.id for other in meant if not other.starts] or [other.id for other in meant]
    return _superseded(f"request {deciding[-1]} decides") if deciding else None


def _unmeant(case: Case) -> Settle | None:
    """Is the session that is meant the one that lives now?"""
    session, token = case.session, case.request.incarnation or ""
    if session is None:
        return _absent(case)
    if not session.incarnation:
        reason = f"the session {session.name} is not ours; `gastown-mail adopt` would make it so"
        return Settle(RequestStatus.REFUSED, reason)
    if token == session.incarnation:
        return None
    if token and not case.work.sender_verified:
        return _superseded("its session has been replaced")
    if _moment(session.started_at) > case.meant_at:
        return _superseded("the session was started after the request")
    return None


def _absent(case: Case) -> Settle | None:
    if case.asker == case.agent.address:
        return _superseded("its session is gone")
    if case.starts and case.record.changed_at > case.meant_at:
        return _superseded("its session has been ended or replaced since")
    return None


def may_ask(asker: str, agent: Agent) -> bool:
    """Who may ask for whom (CONTRACTS section 2)."""
    return asker in {agent.address, "mayor/", "deacon/", OPERATOR} or (
        bool(agent.rig) and asker == f"{agent.rig}/witness"
    )


def _superseded(detail: str) -> Settle:
    return Settle(RequestStatus.SUPERSEDED, detail)


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
