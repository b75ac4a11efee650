"""The daemon inbox: a list that everybody pushes to and one clerk takes from.

Take = move to `taken`; an element leaves `taken` only in the transaction that books it. Whatever a killed
clerk had taken is still there, oldest first.
"""

from dataclasses import dataclass
from typing import Any

from redis import Redis

from gastown_mail.contracts.keys import Keys

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
