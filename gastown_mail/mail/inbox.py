"""The inbox of one town: read by count and by bytes, so that no element and no heap of them stops the clerk.

What the server does with a list, it does in a script: an element that is too long never leaves the server.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import MAX_ELEMENT_BYTES
from gastown_mail.plumbing.connections import read_hash, to_fields, to_str

BATCH_SIZE = 200
"""How many elements are read at a time: enough for speed, few enough to use little memory."""

BATCH_BYTES = 8 * 1024 * 1024
"""How many bytes of elements are read at a time, unless the first one has more."""

HEAD_BYTES = 4096
"""How much is kept of an element that is longer than the limit."""

_MOVE = """
local bytes = 0
for _ = 1, tonumber(ARGV[1]) do
  local element = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
  if not element then break end
  bytes = bytes + #element
  if bytes >= tonumber(ARGV[2]) then break end
end
return redis.call('LLEN', KEYS[2])
"""

_READ = """
local first, count, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, head = tonumber(ARGV[4]), tonumber(ARGV[5])
local found, bytes = {}, 0
for at = first, first + count - 1 do
  local element = redis.call('LINDEX', KEYS[1], at)
  if not element then break end
  bytes = bytes + #element
  if at > first and bytes > budget then break end
  if #element > limit then
    found[#found + 1] = {string.sub(element, 1, head), #element, redis.sha1hex(element)}
  else
    found[#found + 1] = element
  end
end
return found
"""


class CutElement(bytes):
    """The first bytes of an element that is longer than the limit, with its length and its SHA-1."""

    length: int
    digest: str

    def __new__(cls, head: bytes, length: int, digest: str) -> "CutElement":
        made = super().__new__(cls, head)
        made.length, made.digest = length, digest
        return made


@dataclass(frozen=True)
class Inbox:
    """The inbox of one town. `redis` must allow blocking reads as long as `take` waits."""

    redis: Redis
    keys: Keys

    def take(self, wait: float) -> bool:
        """Move the oldest elements to `taken` unless some are there; wait `wait` seconds for the first.

        Return whether `taken` holds any.
        """
        if self.redis.exists(self.keys.taken):
            return True
        # the answer is the element: `unfinished` reads it again, without what is too long
        if self.redis.blmove(self.keys.inbox, self.keys.taken, wait, "LEFT", "RIGHT") is None:  # type: ignore[arg-type]
            return False
        self.redis.eval(_MOVE, 2, self.keys.inbox, self.keys.taken, BATCH_SIZE - 1, BATCH_BYTES)
        return True

    def unfinished(self, pipe: Redis | None = None) -> list[bytes]:
        """Elements that were taken but not recorded, oldest first, at most BATCH_SIZE and BATCH_BYTES.

        `pipe`: the connection to read with.
        """
        return read_elements(pipe or self.redis, self.keys.taken, BATCH_SIZE)

    def note_empty(self) -> None:
        """Note, after the inbox and `taken` were empty, that all was read that this server ever had.

        A new epoch begins when Redis is another server than before, or has been emptied.
        """
        try:
            run_id = str(self.redis.info("server").get("run_id", ""))
        except ResponseError:  # this user has no right to ask
            run_id = ""
        known = read_hash(self.redis, self.keys.epoch)
        if not known or known.get("run_id") != run_id:
            changes = {"run_id": run_id, "epoch": secrets.token_hex(8), "read": ""}
        elif known.get("read"):
            return
        else:
            changes = {"read": "true"}
        self.redis.hset(self.keys.epoch, mapping=to_fields(changes))

    def length(self) -> int:
        """How many elements are in the inbox."""
        return self.redis.llen(self.keys.inbox)

    def peek(self, most: int, start: int = 0) -> list[bytes]:
        """Elements of the inbox from number `start` on, at most `most`, oldest first; they stay there."""
        return read_elements(self.redis, self.keys.inbox, most, start)


def read_elements(redis: Redis, key: str, most: int, start: int = 0) -> list[bytes]:
    """At most `most` elements of a list from number `start` on, and no more than BATCH_BYTES.

    One that is longer than the limit of an element is a `CutElement`.
    """
    arguments = (start, most, BATCH_BYTES, MAX_ELEMENT_BYTES, HEAD_BYTES)
    found: Any = redis.eval(_READ, 1, key, *arguments)
    return [
        CutElement(one[0], int(one[1]), to_str(one[2])) if isinstance(one, list) else bytes(one)
        for one in found
    ]
