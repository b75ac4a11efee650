"""Dead letters: refused, expired, failed and undecodable elements, with their reason, and revivable."""

import time
from dataclasses import dataclass
from typing import Any

from redis import Redis

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.keys import Keys
from gastown_mail.mail.events import record_event
from gastown_mail.mail.requests import Progress, RequestStore
from gastown_mail.plumbing.answers import to_fields, to_str, to_strs


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
