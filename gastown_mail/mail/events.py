"""The events stream: one entry per fact, for people and programs that follow the town."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from gastown_mail.contracts.keys import Keys
from gastown_mail.plumbing.answers import fields, text, text_hash

PAGE = 500
"""How many entries are read in one go."""


@dataclass(frozen=True)
class Event:
    """One fact: its place in the stream (milliseconds since the epoch, dash, number) and its fields."""

    id: str
    fields: Mapping[str, str]

    @property
    def epoch(self) -> float:
        """When it was written down, in seconds since the epoch."""
        return int(self.id.partition("-")[0]) / 1000


def tell(redis: Redis, keys: Keys, event: str, **facts: object) -> None:
    """Write one fact down; on a pipeline it becomes part of the transaction."""
    entry = {"event": event} | {name: value for name, value in facts.items() if value != ""}
    redis.xadd(keys.events, fields(entry), maxlen=keys.events_kept, approximate=True)


def newest(redis: Redis, keys: Keys) -> str:
    """The place of the newest entry, to follow from; `0-0` when there is none."""
    return next((event.id for event in latest(redis, keys, 1)), "0-0")


def since(redis: Redis, keys: Keys, place: str, most: int = PAGE) -> list[Event]:
    """The entries after `place`, oldest first, at most `most`."""
    entries: Any = redis.xrange(keys.events, min=f"({place}", count=most)
    return [_event(*entry) for entry in entries]


def latest(redis: Redis, keys: Keys, most: int) -> list[Event]:
    """The newest `most` entries, oldest first."""
    entries: Any = redis.xrevrange(keys.events, count=most)
    return [_event(*entry) for entry in reversed(entries)]


def newest_first(redis: Redis, keys: Keys, *, since: float = 0.0, until: str = "+") -> Iterator[Event]:
    """The entries from `since` (seconds since the epoch) to the place `until`, read in pages."""
    least = f"{int(since * 1000)}-0"
    while True:
        entries: Any = redis.xrevrange(keys.events, max=until, min=least, count=PAGE)
        yield from (_event(*entry) for entry in entries)
        if len(entries) < PAGE:
            return
        until = f"({text(entries[-1][0])}"


def await_new(redis: Redis, keys: Keys, place: str, wait: float) -> list[Event]:
    """The entries after `place`, oldest first, waiting at most `wait` seconds for the first.

    `redis` must allow blocking reads of that length.
    """
    found: Any = redis.xread({keys.events: place}, count=PAGE, block=int(wait * 1000))
    return [_event(*entry) for _, entries in found or () for entry in entries]


def _event(place: bytes, found: Mapping[bytes, bytes]) -> Event:
    return Event(text(place), text_hash(found))
