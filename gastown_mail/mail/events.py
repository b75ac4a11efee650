"""The events stream: one entry per fact, for people and programs that follow the town."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from redis import Redis

from gastown_mail.contracts.keys import Keys
from gastown_mail.plumbing.connections import to_fields, to_str, to_str_dict

PAGE = 500
"""How many entries are read in one go."""


@dataclass(frozen=True)
class EventType:
    """What an event of this name says, and the fields it may carry; one that would be empty is left out."""

    meaning: str
    fields: tuple[str, ...]


_REQUEST = ("agent", "request", "action", "detail")

EVENTS: Mapping[str, EventType] = MappingProxyType(
    {
        "received": EventType("the clerk has booked a request", _REQUEST),
        "carrying": EventType(
            "a worker begins to carry a request out", ("agent", "request", "action", "session")
        ),
        "ended": EventType(
            "the session that a request was meant for is gone", ("agent", "request", "session")
        ),
        "postponed": EventType(
            "the world did not answer: nobody is touched, the sweep comes back to it",
            ("agent", "request", "detail"),
        ),
        "done": EventType("a request was carried out", _REQUEST),
        "superseded": EventType("a request's session was gone or replaced, or a later one decided", _REQUEST),
        "refused": EventType(
            "a request is a dead letter: it may not, or could not, be carried out", _REQUEST
        ),
        "expired": EventType("a request is a dead letter: it is older than `max_request_age`", _REQUEST),
        "failed": EventType("a request is a dead letter: all tries are used", _REQUEST),
        "revived": EventType("an operator put a dead letter back into the inbox", ("agent", "request")),
        "dropped": EventType("an operator took a dead letter off the list", ("agent", "request")),
        "starting": EventType("a session is about to be started, without a request", ("agent", "detail")),
        "started": EventType("a session lives", ("agent", "request", "session", "pid")),
        "start_failed": EventType(
            "one try to start a session came to nothing", ("agent", "request", "detail")
        ),
        "not_started": EventType("a session could not be started, with the reason", ("agent", "detail")),
        "back_off": EventType(
            "the next start by the daemon itself has to wait", ("agent", "request", "detail")
        ),
        "quarantined": EventType(
            "an agent died too often: it is left alone for a while", ("agent", "detail")
        ),
        "recovered": EventType("an agent has lived long enough: its deaths are forgotten", ("agent",)),
        "cleared": EventType("an operator ended back-off and quarantine", ("agent",)),
        "adopted": EventType("a session that was not ours got a token", ("agent", "session")),
        "desired": EventType("what is wanted of an agent, or of the town, has changed", ("agent", "detail")),
        "poke": EventType("a line was typed into a session, or held", ("agent", "outcome")),
        "heartbeat": EventType(
            "a heartbeat is completed", ("number", "started", "poked", "held", "left", "requeued")
        ),
        "heartbeat_failed": EventType("a heartbeat could not look: it does not count", ("detail",)),
        "daemon_started": EventType("a process keeps the town's state from now on", ("pid",)),
        "daemon_stopped": EventType("it does so no more", ("pid",)),
        "restored": EventType("Redis was empty and has been filled from the disk", ("detail",)),
    }
)
"""Every event there is, in the order of a request's way, of an agent's, of the daemon's."""

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "event": "its name; every entry has it",
        "agent": "the agent's canonical address; `*` is the whole town",
        "request": "the request's id",
        "action": "cycle, restart or shutdown",
        "detail": "words for people: the reason, or what is wanted now",
        "session": "the name of the tmux session",
        "pid": "the pid of the session's program, or of the process that keeps the town",
        "outcome": "delivered, or `held: …` or `failed: …` with the reason",
        "number": "which heartbeat it is since the daemon started",
        "started": "agents to be started",
        "poked": "agents whose poke was delivered",
        "held": "agents whose poke was not",
        "left": "agents with whom nothing had to be done",
        "requeued": "requests that were queued again, because nobody was carrying them out",
    }
)
"""What each field of an event says."""


@dataclass(frozen=True)
class Event:
    """One fact: its place in the stream (milliseconds since the epoch, dash, number) and its fields."""

    id: str
    fields: Mapping[str, str]

    @property
    def epoch(self) -> float:
        """When it was written down, in seconds since the epoch."""
        return int(self.id.partition("-")[0]) / 1000


def record_event(redis: Redis, keys: Keys, event: str, **facts: object) -> None:
    """Write one fact down; on a pipeline it becomes part of the transaction."""
    entry = {"event": event} | {name: value for name, value in facts.items() if value != ""}
    redis.xadd(keys.events, to_fields(entry), maxlen=keys.events_kept, approximate=True)


def last_id(redis: Redis, keys: Keys) -> str:
    """The place of the newest entry, to follow from; `0-0` when there is none."""
    return next((event.id for event in read_latest(redis, keys, 1)), "0-0")


def read_after(redis: Redis, keys: Keys, event_id: str, most: int = PAGE) -> list[Event]:
    """The entries after `place`, oldest first, at most `most`."""
    entries: Any = redis.xrange(keys.events, min=f"({event_id}", count=most)
    return [_event(*entry) for entry in entries]


def read_latest(redis: Redis, keys: Keys, most: int) -> list[Event]:
    """The newest `most` entries, oldest first."""
    entries: Any = redis.xrevrange(keys.events, count=most)
    return [_event(*entry) for entry in reversed(entries)]


def iter_newest_first(redis: Redis, keys: Keys, *, since: float = 0.0, until: str = "+") -> Iterator[Event]:
    """The entries from `since` (seconds since the epoch) to the place `until`, read in pages."""
    least = f"{int(since * 1000)}-0"
    while True:
        entries: Any = redis.xrevrange(keys.events, max=until, min=least, count=PAGE)
        yield from (_event(*entry) for entry in entries)
        if len(entries) < PAGE:
            return
        until = f"({to_str(entries[-1][0])}"


def read_new(redis: Redis, keys: Keys, event_id: str, wait: float) -> list[Event]:
    """The entries after `place`, oldest first, waiting at most `wait` seconds for the first.

    `redis` must allow blocking reads of that length.
    """
    found: Any = redis.xread({keys.events: event_id}, count=PAGE, block=int(wait * 1000))
    return [_event(*entry) for _, entries in found or () for entry in entries]


def _event(event_id: bytes, found: Mapping[bytes, bytes]) -> Event:
    return Event(to_str(event_id), to_str_dict(found))
