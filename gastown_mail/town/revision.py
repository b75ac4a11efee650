"""How far the town's records have come: a counter in Redis, and on each host the highest value it has seen.

A counter below what a host has seen tells that Redis was emptied, or that an older copy of it took over.
"""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from redis import Redis

from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import Postponed, StateFileError
from gastown_mail.contracts.keys import Keys
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import to_fields, to_strs

HOLD_SECONDS = 20.0
"""How long no agent is started after Redis came back older, where there are several hosts: each has to say
first which agents live on it."""

_JUMP = 1_000_000
"""A counter that came back too low continues so far beyond what one host has seen."""

_BEHIND = "Redis came back older than this host has seen it; what it has lost is restored first"


class _Seen(BaseModel):
    """What this host has seen: the counter, how many hosts, and which rewinding it has recovered from."""

    number: int = 0
    rewound_at: float = 0.0
    hosts: int = 0


class Counter(NamedTuple):
    """What Redis has: the counter, and when (epoch seconds) it was last found to be too low, 0 if never."""

    number: int
    rewound_at: float


class Revision:
    """The counter of one town, and what this host has seen of it, in `file`."""

    def __init__(self, redis: Redis, keys: Keys, file: Path) -> None:
        self._redis, self._keys, self._file = redis, keys, file

    def read(self, redis: Redis | None = None) -> Counter:
        """The counter in Redis. Raises RedisError."""
        number, at = to_strs((redis or self._redis).hmget(self._keys.revision, ["number", "rewound_at"]))
        return Counter(int(number or 0), float(at or 0))

    def advance(self, redis: Any) -> Any:
        """Count one up; on a pipeline as part of its transaction."""
        return redis.hincrby(self._keys.revision, "number", 1)

    def next_wish(self, pipe: Any) -> int:
        """A number greater than those of all wishes this host knows; on a pipeline before its transaction."""
        number, seen = int(self.advance(pipe)), self._seen()
        return seen.number + _JUMP if number <= seen.number else number

    def is_current(self) -> bool:
        """Whether Redis has all that this host has seen, and this host has restored what was lost."""
        return self._is_current(self.read(), self._seen())

    def require_current(self, pipe: Redis) -> None:
        """Raise Postponed unless an agent may be started now, as far as the counter tells."""
        counter, seen = self.read(pipe), self._seen()
        if not self._is_current(counter, seen):
            raise Postponed(_BEHIND)
        if seen.hosts > 1 and redis_time(pipe) < counter.rewound_at + HOLD_SECONDS:
            raise Postponed("Redis came back older; nothing is started until each host has said what it has")

    def set_beyond(self) -> None:
        """Set a counter that is too low beyond what this host has seen; record that and when."""
        seen = self._seen()

        def act(pipe: Any) -> None:
            is_low, now = self.read(pipe).number < seen.number, redis_time(pipe)
            pipe.multi()
            if is_low:
                changes = {"number": str(seen.number + _JUMP), "rewound_at": str(now)}
                pipe.hset(self._keys.revision, mapping=to_fields(changes))
                detail = "Redis came back empty or older; wishes and sessions are restored from each host"
                record_event(pipe, self._keys, EventName.REWOUND, detail=detail)

        self._redis.transaction(act, self._keys.revision)

    def mark_recovered(self) -> None:
        """Note that this host has restored what Redis had lost. Raises StateFileError."""
        counter = self.read()
        self._store(_Seen(number=counter.number, rewound_at=counter.rewound_at))

    def remember(self, hosts: int) -> None:
        """Note how far Redis is, and how many hosts live. Raises StateFileError."""
        counter, seen = self.read(), self._seen()
        is_held = redis_time(self._redis) < counter.rewound_at + HOLD_SECONDS
        if self._is_current(counter, seen) and not (is_held and hosts < seen.hosts):
            self._store(_Seen(number=counter.number, rewound_at=counter.rewound_at, hosts=hosts))

    @staticmethod
    def _is_current(counter: Counter, seen: _Seen) -> bool:
        return counter.number >= seen.number and counter.rewound_at == seen.rewound_at

    def _seen(self) -> _Seen:
        try:
            return _Seen.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):  # the next look writes it again
            return _Seen()

    def note(self, number: int) -> None:
        """Note that this host has seen this number. Raises StateFileError."""
        self._store(_Seen(number=number))

    def _store(self, seen: _Seen) -> None:
        # another process of this host may have seen more just now
        before = self._seen()
        seen = _Seen(
            number=max(seen.number, before.number),
            rewound_at=max(seen.rewound_at, before.rewound_at),
            hosts=seen.hosts or before.hosts,
        )
        if seen == before:
            return
        try:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomically(self._file, seen.model_dump_json().encode())
        except OSError as error:
            raise StateFileError(f"{self._file} cannot be written: {error}") from error
