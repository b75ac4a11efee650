"""What became of each request: the public record, the daemon's own notes, and the dead letters.

The record (`request:<id>`) is for everybody, so it holds no token and no handoff. What only the daemon needs,
the element itself and how far its carrying out has come, is in `work:<id>`.

The daemon inbox: a list that everybody pushes to and one clerk takes from.

Take = move to `taken`; an element leaves `taken` only in the transaction that books it. Whatever a killed
clerk had taken is still there, oldest first.

Dead letters: refused, expired, failed and undecodable elements, with their reason, and revivable."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis import Redis
from redis.client import Pipeline

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, RequestStatus
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.connections import read_hash, to_fields, to_str, to_str_dict, to_strs

SCAN_STEP = 1000
"""How many keys Redis looks at in one go."""


@dataclass(frozen=True)
class IncomingRequest:
    """An element as the clerk judged it: `asker`'s request for `agent`, or refused with a reason.

    `trusted`: it did not come through the inbox, so its asker needs no other proof. `proven`: it asks for
    another agent, and carried the incarnation of the session in which its asker lived just then.
    """

    id: str
    element: bytes
    request: LifecycleRequest | None = None
    agent: str = ""
    asker: str = ""
    rejection: str = ""
    trusted: bool = False
    sender_verified: bool = False


@dataclass(frozen=True)
class Progress:
    """What the daemon notes of a request it carries out. Times are seconds since the epoch, 0 = never."""

    element: bytes
    attempts: int = 0
    started_at: float = 0.0
    target_incarnation: str = ""
    successors: tuple[str, ...] = ()
    revived_at: float = 0.0
    trusted: bool = False
    sender_verified: bool = False


@dataclass(frozen=True)
class RequestStore:
    """The requests of one town."""

    redis: Redis
    keys: Keys

    def are_known(self, ids: Sequence[str]) -> list[bool]:
        """Which of these the clerk has booked already: a second copy of them is no second request."""
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hexists(self.keys.request(request_id), "received_at")
            return pipe.execute()

    def next_sequence(self, count: int) -> int:
        """Reserve `count` places in the order of the town; return the first."""
        return int(self.redis.incrby(self.keys.sequence, count)) - count + 1

    def add(self, pipe: Pipeline, incoming: IncomingRequest, sequence: int, now: datetime) -> None:
        """Write a new request down, as part of the clerk's transaction."""
        record = _public(incoming) | {"received_at": format_time(now), "finished_at": "", "detail": ""}
        record["status"] = RequestStatus.RECEIVED.value
        proofs = {"trusted": incoming.trusted, "proven": incoming.sender_verified}
        given = {name: "true" for name, holds in proofs.items() if holds}
        pipe.hset(self.keys.progress(incoming.id), mapping=to_fields({"element": incoming.element, **given}))
        if incoming.rejection:
            record |= _end(RequestStatus.REFUSED, incoming.rejection, now)
            self._close(pipe, incoming.id, incoming.agent, record, now)
        else:
            pipe.hset(self.keys.request(incoming.id), mapping=to_fields(record))
            pipe.zadd(self.keys.pending(incoming.agent), {incoming.id: sequence})
            pipe.zadd(self.keys.unsettled, {incoming.id: now.timestamp()})
        record_event(pipe, self.keys, record["status"], agent=incoming.agent, request=incoming.id,
             action=record["action"], detail=incoming.rejection)  # fmt: skip

    def record(self, request_id: str) -> dict[str, str]:
        """The public record; empty when there is none (yet, or any more)."""
        return read_hash(self.redis, self.keys.request(request_id))

    def records(self, ids: Sequence[str]) -> list[dict[str, str]]:
        """The public records of many, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hgetall(self.keys.request(request_id))
            return [to_str_dict(answer) for answer in pipe.execute()]

    def progress(self, request_id: str) -> Progress | None:
        """The daemon's notes on a request, None when there is no such request."""
        return self.progress_many([request_id])[0]

    def progress_many(self, ids: Sequence[str]) -> list[Progress | None]:
        """The daemon's notes on many, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hgetall(self.keys.progress(request_id))
            return [_parse_progress(found) for found in pipe.execute()]

    def pending(self, agent: str) -> list[str]:
        """The ids that wait for the agent or are being carried out, oldest first."""
        return to_strs(self.redis.zrange(self.keys.pending(agent), 0, -1))

    def in_progress(self, agent: str) -> str | None:
        """The agent's request that a worker has begun and nobody has settled, None when there is none."""
        ids = self.pending(agent)
        notes = zip(ids, self.progress_many(ids), strict=True)
        return next((request_id for request_id, note in notes if note and note.started_at), None)

    def unsettled(self) -> dict[str, float]:
        """All ids without a final status, with the time they were received (seconds since the epoch)."""
        found: list[Any] = self.redis.zrange(self.keys.unsettled, 0, -1, withscores=True)
        return {to_str(member): float(score) for member, score in found}

    def all_ids(self) -> list[str]:
        """The ids of all that have a record, settled or not, in no order; every key of Redis is looked at."""
        prefix = self.keys.request("")
        found = {to_str(key) for key in self.redis.scan_iter(match=f"{prefix}*", count=SCAN_STEP)}
        return [key.removeprefix(prefix) for key in found]

    def settle(self, request_id: str, agent: str, status: RequestStatus, detail: str, now: datetime) -> bool:
        """Give a request its one final status; False when it already has one (and nothing is changed)."""
        key = self.keys.request(request_id)

        def unless_final(pipe: Any) -> Any:
            found: Any = pipe.hmget(key, ["status", "action"])
            before, action = to_strs(found)
            pipe.multi()
            if not before or before in FINAL_STATUSES:
                return False
            self._close(pipe, request_id, agent, _end(status, detail, now), now)
            record_event(
                pipe, self.keys, status.value, agent=agent, request=request_id, action=action, detail=detail
            )
            return True

        return bool(self.redis.transaction(unless_final, key, value_from_callable=True))

    def set_detail(self, request_id: str, detail: str) -> None:
        """Say for people where an open request stands; a settled one is not touched."""
        key = self.keys.request(request_id)

        def unless_final(pipe: Any) -> None:
            open_still = to_str(pipe.hget(key, "status")) not in (*FINAL_STATUSES, "")
            pipe.multi()
            if open_still:
                pipe.hset(key, "detail", detail)

        self.redis.transaction(unless_final, key)

    def _close(self, pipe: Pipeline, request_id: str, agent: str, end: dict[str, str], now: datetime) -> None:
        pipe.hset(self.keys.request(request_id), mapping=to_fields(end))
        pipe.zrem(self.keys.pending(agent), request_id)
        pipe.zrem(self.keys.unsettled, request_id)
        if end["status"] in DEAD_STATUSES:
            self._add_dead_letter(pipe, request_id, now)
        self._set_expiry(pipe, request_id)

    def _add_dead_letter(self, pipe: Pipeline, request_id: str, now: datetime) -> None:
        pipe.zadd(self.keys.dead, {request_id: now.timestamp()})
        pipe.zremrangebyscore(self.keys.dead, "-inf", now.timestamp() - self.keys.requests_kept)

    def _set_expiry(self, pipe: Pipeline, request_id: str) -> None:
        kept = timedelta(seconds=self.keys.requests_kept)
        pipe.pexpire(self.keys.request(request_id), kept)
        pipe.pexpire(self.keys.progress(request_id), kept)


def _parse_progress(found: dict[Any, Any]) -> Progress | None:
    if b"element" not in found:
        return None
    notes = to_str_dict(found)
    return Progress(
        element=found[b"element"],
        attempts=int(notes.get("tries", 0)),
        started_at=float(notes.get("begun_at", 0)),
        target_incarnation=notes.get("victim", ""),
        successors=tuple(notes.get("successors", "").split()),
        revived_at=float(notes.get("revived_at", 0)),
        trusted=notes.get("trusted") == "true",
        sender_verified=notes.get("proven") == "true",
    )


def _public(incoming: IncomingRequest) -> dict[str, str]:
    request = incoming.request
    if request is None:
        return {"from": "", "to": "", "action": "", "timestamp": "", "reason": ""}
    return {
        "from": incoming.asker or request.sender,
        "to": incoming.agent or request.target,
        "action": request.action.value,
        "timestamp": format_time(request.timestamp),
        "reason": request.reason,
        "agent": incoming.agent,
    }


def _end(status: RequestStatus, detail: str, now: datetime) -> dict[str, str]:
    return {"status": status.value, "detail": detail, "finished_at": format_time(now)}


BATCH_SIZE = 200
"""How many elements are judged in one go: enough for speed, few enough to stay small in memory."""


@dataclass(frozen=True)
class Inbox:
    """The inbox of one town. `redis` must allow blocking reads of the `wait` that `take` is given."""

    redis: Redis
    keys: Keys

    def take(self, wait: float) -> list[bytes]:
        """Move the oldest elements to `taken`, waiting at most `wait` seconds for the first one."""
        first: Any = self.redis.blmove(self.keys.inbox, self.keys.taken, wait, "LEFT", "RIGHT")  # type: ignore[arg-type]
        if first is None:
            return []
        return [first, *self._more(self.redis.llen(self.keys.inbox))]

    def unfinished(self) -> list[bytes]:
        """What was taken and never booked, oldest first, at most `MOST_AT_ONCE`."""
        return self._range(self.keys.taken, BATCH_SIZE)

    def length(self) -> int:
        """How many elements nobody has taken yet."""
        return self.redis.llen(self.keys.inbox)

    def peek(self, most: int, start: int = 0) -> list[bytes]:
        """Elements that nobody has taken yet, oldest first from number `start` on, left where they are."""
        return self._range(self.keys.inbox, most, start)

    def _range(self, key: str, most: int, start: int = 0) -> list[bytes]:
        elements: Any = self.redis.lrange(key, start, start + most - 1)
        return list(elements)

    def _more(self, waiting: int) -> list[bytes]:
        with self.redis.pipeline(transaction=False) as pipe:
            for _ in range(min(waiting, BATCH_SIZE - 1)):
                pipe.lmove(self.keys.inbox, self.keys.taken, "LEFT", "RIGHT")
            return [element for element in pipe.execute() if element is not None]


@dataclass(frozen=True)
class DeadLetters:
    """The dead letters of one town."""

    redis: Redis
    keys: Keys

    def ids(self, since: float = 0.0) -> list[str]:
        """The ids of the dead letters still kept that died since then (epoch), oldest first."""
        oldest = max(since, time.time() - self.keys.requests_kept)
        found: list[Any] = self.redis.zrange(self.keys.dead, oldest, "+inf", byscore=True)
        return to_strs(found)

    def revive(self, request_id: str) -> None:
        """Put a dead letter back into the inbox, as if asked for now; raises GastownError if it is none."""

        def while_dead(pipe: Any) -> None:
            work, agent = self._work(request_id), self._agent(request_id)
            proofs = {"trusted": work.trusted, "proven": work.sender_verified}
            notes = {"revived_at": time.time(), **{name: "true" for name, holds in proofs.items() if holds}}
            pipe.multi()
            pipe.zrem(self.keys.dead, request_id)
            pipe.delete(self.keys.request(request_id), self.keys.progress(request_id))
            pipe.hset(self.keys.progress(request_id), mapping=to_fields(notes))
            pipe.rpush(self.keys.inbox, work.element)
            record_event(pipe, self.keys, "revived", agent=agent, request=request_id)

        self.redis.transaction(while_dead, self.keys.dead)

    def drop(self, request_id: str) -> None:
        """Take a dead letter off the list; its record stays until it expires. Raises as `revive`."""
        self._work(request_id)
        agent = self._agent(request_id)
        with self.redis.pipeline() as pipe:
            pipe.zrem(self.keys.dead, request_id)
            record_event(pipe, self.keys, "dropped", agent=agent, request=request_id)
            pipe.execute()

    def _agent(self, request_id: str) -> str:
        return to_str(self.redis.hget(self.keys.request(request_id), "agent"))

    def _work(self, request_id: str) -> Progress:
        if self.redis.zscore(self.keys.dead, request_id) is None:
            raise GastownError(f"there is no dead letter {request_id}; `gastown-mail dead` lists them")
        work = RequestStore(self.redis, self.keys).progress(request_id)
        if work is None:
            raise GastownError(f"the dead letter {request_id} is no longer kept; send a new request instead")
        return work
