"""The requests of one town: the inbox, the record of each request, and the dead letters.

The inbox is a list: any program pushes to it, one clerk takes from it. Taking an element moves it to
`taken`; it leaves `taken` only in the transaction that records it. So what a killed clerk had taken is
still there, oldest first.

The record (`request:<id>`) is public, so it holds no token and no handoff. What only the daemon needs, the
element itself and its progress with it, is in `work:<id>`.

Dead letters are the elements that were refused, expired, failed or could not be read, with the reason. They
can be revived.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field
from redis import Redis
from redis.client import Pipeline

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, RequestStatus
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.contracts.validation import EpochSeconds, Flag, RedisHash, Words, stored_as
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.mail.inbox import BATCH_SIZE, CutElement
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import read_hash, read_hashes, to_fields, to_str, to_str_dict, to_strs

_SCAN_STEP = 1000
"""How many keys Redis scans at a time."""

MAX_OPEN = 1000
"""How many open requests one agent may have; older ones are superseded when more come."""


@dataclass(frozen=True)
class IncomingRequest:
    """An element as the clerk classified it: `asker`'s request for `agent`, or rejected with a reason.

    `trusted`: it did not come through the inbox, so its asker needs no other proof. `sender_verified`: it
    asks for another agent, and carries the incarnation of its asker's session. `unplaced`: why no host can be
    named yet. `sender_ahead`: seconds by which the clock that it was written by is ahead of that of Redis.
    """

    id: str
    element: bytes
    request: LifecycleRequest | None = None
    agent: str = ""
    asker: str = ""
    rejection: str = ""
    unplaced: str = ""
    trusted: bool = False
    sender_verified: bool = False
    sender_ahead: float = 0.0

    def proofs(self) -> dict[str, str]:
        """The part of `Progress` that comes from the clerk."""
        return Progress(
            trusted=self.trusted, sender_verified=self.sender_verified, sender_ahead=self.sender_ahead,
            cut=isinstance(self.element, CutElement),
        ).non_default_fields()  # fmt: skip

    def record(self) -> dict[str, str]:
        """The part of the public record that comes from the element."""
        request = self.request
        if request is None:
            return {"from": "", "to": "", "action": "", "timestamp": "", "reason": ""}
        return {
            "from": self.asker or request.sender,
            "to": self.agent or request.target,
            "action": request.action.value,
            "timestamp": format_time(request.timestamp),
            "reason": request.reason,
            "agent": self.agent,
        }


class Progress(RedisHash):
    """How far the daemon has come with a request: the hash `work:<id>`. Times are None until there is one.

    `cut`: only the head of the element was kept, because it was too long.
    """

    element: bytes = Field(default=b"", exclude=True)
    attempts: int = stored_as("tries", 0)
    started_at: EpochSeconds | None = stored_as("begun_at", None)
    target_incarnation: str = stored_as("victim", "")
    successors: Words = ()
    revived_at: EpochSeconds | None = None
    trusted: Flag = False
    sender_verified: Flag = stored_as("proven", False)
    sender_ahead: float = 0.0
    cut: Flag = False


@dataclass(frozen=True)
class RequestStore:
    """The requests of one town."""

    redis: Redis
    keys: Keys

    def are_known(self, ids: Sequence[str]) -> list[bool]:
        """Which of these have a record already: a second copy of an element is not a second request."""
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hexists(self.keys.request(request_id), "received_at")
            return pipe.execute()

    def next_sequence(self, count: int) -> int:
        """Reserve `count` numbers in the town's order of requests; return the first."""
        return int(self.redis.incrby(self.keys.sequence, count)) - count + 1

    def add(self, pipe: Pipeline, incoming: IncomingRequest, sequence: int, now: datetime) -> None:
        """Record a new request, as part of the clerk's transaction."""
        record = incoming.record() | {"received_at": format_time(now), "finished_at": ""}
        record["detail"] = incoming.unplaced and f"waiting: {incoming.unplaced}"
        record["status"] = RequestStatus.RECEIVED.value
        notes = {"element": incoming.element, **incoming.proofs()}
        pipe.hset(self.keys.progress(incoming.id), mapping=to_fields(notes))
        if incoming.rejection:
            record |= _final_fields(RequestStatus.REFUSED, incoming.rejection, now)
            self._close(pipe, incoming.id, incoming.agent, record, now)
        else:
            pipe.hset(self.keys.request(incoming.id), mapping=to_fields(record))
            pipe.zadd(self.keys.pending(incoming.agent), {incoming.id: sequence})
            pipe.zadd(self.keys.unsettled, {incoming.id: now.timestamp()})
        record_event(
            pipe, self.keys, EventName(record["status"]), agent=incoming.agent, request=incoming.id,
            action=record["action"], detail=incoming.rejection,
        )  # fmt: skip

    def unplaced(self) -> dict[str, int]:
        """The ids of the requests that wait for a host, and their numbers in the town's order."""
        pairs: list[Any] = self.redis.zrange(self.keys.pending(""), 0, BATCH_SIZE - 1, withscores=True)
        return {to_str(member): int(score) for member, score in pairs}

    def place(self, pipe: Pipeline, incoming: IncomingRequest, sequence: int) -> None:
        """Give a request that waited for a host to its agent, as part of the clerk's transaction."""
        pipe.zrem(self.keys.pending(""), incoming.id)
        pipe.zadd(self.keys.pending(incoming.agent), {incoming.id: sequence})
        pipe.hset(self.keys.request(incoming.id), mapping=to_fields(incoming.record() | {"detail": ""}))
        if proofs := incoming.proofs():
            pipe.hset(self.keys.progress(incoming.id), mapping=to_fields(proofs))

    def record(self, request_id: str) -> dict[str, str]:
        """The public record; empty if it does not exist yet or has expired."""
        return read_hash(self.redis, self.keys.request(request_id))

    def records(self, ids: Sequence[str]) -> list[dict[str, str]]:
        """The public records of these requests, in one round trip."""
        return read_hashes(self.redis, map(self.keys.request, ids))

    def progress(self, request_id: str) -> Progress | None:
        """How far a request has come, None if there is no such request."""
        return self.progress_many([request_id])[0]

    def progress_many(self, ids: Sequence[str]) -> list[Progress | None]:
        """How far these requests have come, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hgetall(self.keys.progress(request_id))
            hashes = pipe.execute()
        return [
            Progress.from_mapping(to_str_dict(notes)).model_copy(update={"element": notes[b"element"]})
            if b"element" in notes
            else None
            for notes in hashes
        ]

    def pending(self, agent: str) -> list[str]:
        """The ids of the agent's requests without a final status, oldest first."""
        return to_strs(self.redis.zrange(self.keys.pending(agent), 0, -1))

    def in_progress(self, agent: str) -> str | None:
        """The agent's request that a worker has begun but not settled, None if there is none."""
        ids = self.pending(agent)
        with self.redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.hexists(self.keys.progress(request_id), "begun_at")
            begun = pipe.execute()
        return next((request_id for request_id, is_begun in zip(ids, begun, strict=True) if is_begun), None)

    def unsettled(self) -> dict[str, float]:
        """The ids of all requests without a final status, and when they were received (epoch seconds)."""
        pairs: list[Any] = self.redis.zrange(self.keys.unsettled, 0, -1, withscores=True)
        return {to_str(member): float(score) for member, score in pairs}

    def all_ids(self) -> list[str]:
        """The ids of all requests with a record, in no order. Redis scans every key it has."""
        prefix = self.keys.request("")
        keys = {to_str(key) for key in self.redis.scan_iter(match=f"{prefix}*", count=_SCAN_STEP)}
        return [key.removeprefix(prefix) for key in keys]

    def settle(self, request_id: str, agent: str, status: RequestStatus, detail: str, now: datetime) -> bool:
        """Give a request its one final status; False, and no change, if it has one already."""
        return bool(self.settle_all(agent, {request_id: (status, detail)}, now))

    def settle_all(
        self, agent: str, ends: Mapping[str, tuple[RequestStatus, str]], now: datetime,
        *, unless: Iterable[str] = (),
    ) -> list[str]:  # fmt: skip
        """Settle some requests of one agent at once, each by its id with its status and detail.

        Returns the ids of those that were settled: not those with a final status, or one of `unless`.
        """
        keys = [self.keys.request(request_id) for request_id in ends]

        def act(pipe: Any) -> Any:
            before = dict(zip(ends, self.records(list(ends)), strict=True))
            open_ids = [
                request_id
                for request_id, record in before.items()
                if (status := record.get("status", ""))
                and status not in FINAL_STATUSES
                and status not in unless
            ]
            pipe.multi()
            for request_id in open_ids:
                status, detail = ends[request_id]
                self._close(pipe, request_id, agent, _final_fields(status, detail, now), now)
                record_event(
                    pipe, self.keys, EventName(status), agent=agent, request=request_id,
                    action=before[request_id].get("action", ""), detail=detail,
                )  # fmt: skip
            return open_ids

        settled: Any = self.redis.transaction(act, *keys, value_from_callable=True)
        return list(settled)

    def set_detail(self, request_id: str, detail: str) -> bool:
        """Set the detail of an open request, for people; False if it is settled, or the detail not new."""
        key = self.keys.request(request_id)

        def unless_final(pipe: Any) -> Any:
            status, before = to_strs(pipe.hmget(key, ["status", "detail"]))
            pipe.multi()
            if status in (*FINAL_STATUSES, "") or before == detail:
                return False
            pipe.hset(key, "detail", detail)
            return True

        return bool(self.redis.transaction(unless_final, key, value_from_callable=True))

    def _close(self, pipe: Pipeline, request_id: str, agent: str, end: dict[str, str], now: datetime) -> None:
        pipe.hset(self.keys.request(request_id), mapping=to_fields(end))
        pipe.zrem(self.keys.pending(agent), request_id)
        pipe.zrem(self.keys.unsettled, request_id)
        if end["status"] in DEAD_STATUSES:
            pipe.zadd(self.keys.dead, {request_id: now.timestamp()})
            pipe.zremrangebyscore(self.keys.dead, "-inf", now.timestamp() - self.keys.requests_kept)
        for key in (self.keys.request(request_id), self.keys.progress(request_id)):
            pipe.pexpire(key, timedelta(seconds=self.keys.requests_kept))


def _final_fields(status: RequestStatus, detail: str, now: datetime) -> dict[str, str]:
    return {"status": status.value, "detail": detail, "finished_at": format_time(now)}


@dataclass(frozen=True)
class DeadLetters:
    """The dead letters of one town."""

    redis: Redis
    keys: Keys

    def ids(self, since: float = 0.0) -> list[str]:
        """The ids of the dead letters from `since` (seconds since the epoch) on, oldest first."""
        oldest = max(since, redis_time(self.redis) - self.keys.requests_kept)
        ids: list[Any] = self.redis.zrange(self.keys.dead, oldest, "+inf", byscore=True)
        return to_strs(ids)

    def count(self) -> int:
        """How many there are."""
        oldest = redis_time(self.redis) - self.keys.requests_kept
        return self.redis.zcount(self.keys.dead, oldest, "+inf")

    def revive(self, request_id: str) -> None:
        """Put a dead letter back into the inbox as a new request. Raises GastownError if there is none."""

        def while_dead(pipe: Any) -> None:
            progress, agent = self._find(request_id)
            if progress.cut:
                raise GastownError(f"{request_id} was too long and is kept in part; send a shorter request")
            notes = Progress(
                revived_at=datetime.fromtimestamp(redis_time(self.redis), UTC),
                trusted=progress.trusted,
                sender_verified=progress.sender_verified,
            ).non_default_fields()
            pipe.multi()
            pipe.zrem(self.keys.dead, request_id)
            pipe.delete(self.keys.request(request_id), self.keys.progress(request_id))
            pipe.hset(self.keys.progress(request_id), mapping=to_fields(notes))
            pipe.rpush(self.keys.inbox, progress.element)
            pipe.hdel(self.keys.epoch, "read")  # it has no record until it is read
            record_event(pipe, self.keys, EventName.REVIVED, agent=agent, request=request_id)

        self.redis.transaction(while_dead, self.keys.dead)

    def drop(self, request_id: str) -> None:
        """Remove a dead letter from the list; its record stays until it expires. Raises like `revive`."""
        _, agent = self._find(request_id)
        with self.redis.pipeline() as pipe:
            pipe.zrem(self.keys.dead, request_id)
            record_event(pipe, self.keys, EventName.DROPPED, agent=agent, request=request_id)
            pipe.execute()

    def _find(self, request_id: str) -> tuple[Progress, str]:
        if self.redis.zscore(self.keys.dead, request_id) is None:
            raise GastownError(f"there is no dead letter {request_id}; `gastown-mail dead` lists them")
        progress = RequestStore(self.redis, self.keys).progress(request_id)
        if progress is None:
            raise GastownError(f"the dead letter {request_id} is no longer kept; send a new request instead")
        return progress, to_str(self.redis.hget(self.keys.request(request_id), "agent"))
