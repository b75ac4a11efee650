"""The events stream: one entry per fact, for people and programs that follow the town."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

from redis import Redis

from gastown_mail.contracts.keys import Keys
from gastown_mail.plumbing.connections import to_fields, to_str, to_str_dict

_PAGE = 500
"""How many entries are read at a time."""

_REQUEST = ("agent", "request", "action", "detail")


class EventName(StrEnum):
    """Every event: those of a request, of an agent, of the daemon, in the order in which they happen.

    `meaning` says what happened, `fields` which fields it may have; a field that would be empty is left out.
    """

    meaning: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, meaning: str = "", fields: tuple[str, ...] = ()) -> Self:
        member = str.__new__(cls, name)
        member._value_, member.meaning, member.fields = name, meaning, fields
        return member

    RECEIVED = "received", "the clerk has recorded a request", _REQUEST
    CARRYING = "carrying", "a worker has started on a request", ("agent", "request", "action", "session")
    ENDED = "ended", "the session that a request was meant for has ended", ("agent", "request", "session")
    SPARED = (
        "spared",
        "shared daemons that a session had started are still running after its end",
        ("agent", "request", "detail"),
    )
    POSTPONED = (
        "postponed",
        "a request has to wait: nothing was started or ended; the sweep tries again",
        ("agent", "request", "detail"),
    )
    DONE = "done", "a request was carried out", _REQUEST
    SUPERSEDED = (
        "superseded",
        "the session of a request was gone or replaced, or a later request decided",
        _REQUEST,
    )
    REFUSED = (
        "refused",
        "a request is a dead letter: it was not allowed, or could not be carried out",
        _REQUEST,
    )
    EXPIRED = "expired", "a request is a dead letter: it is older than `max_request_age`", _REQUEST
    FAILED = "failed", "a request is a dead letter: all attempts have failed", _REQUEST
    REVIVED = "revived", "an operator put a dead letter back into the inbox", ("agent", "request")
    DROPPED = "dropped", "an operator removed a dead letter from the list", ("agent", "request")
    STARTING = "starting", "a session is about to be started without a request", ("agent", "detail")
    STARTED = "started", "a session has started", ("agent", "request", "session", "pid")
    START_FAILED = "start_failed", "one attempt to start a session has failed", ("agent", "request", "detail")
    NOT_STARTED = "not_started", "a session could not be started", ("agent", "detail")
    BACK_OFF = "back_off", "the next automatic start has to wait", ("agent", "request", "detail")
    QUARANTINED = "quarantined", "an agent died too often and is left alone for a while", ("agent", "detail")
    RECOVERED = "recovered", "an agent has lived long enough: its earlier deaths are forgotten", ("agent",)
    CLEARED = "cleared", "an operator ended back-off and quarantine", ("agent",)
    ADOPTED = "adopted", "a session that was started outside got a token", ("agent", "session")
    MOVED = "moved", "an operator gave an agent to another host", ("agent", "detail")
    RELEASING = "releasing", "a host is about to end an agent's session that moves away", ("agent", "detail")
    RELEASED = "released", "a host has left an agent to another host", ("agent", "detail")
    DESIRED = "desired", "the desired state of an agent, or of the town, has changed", ("agent", "detail")
    POKE = "poke", "a line was typed into a session, or held", ("agent", "outcome", "detail")
    STATE = (
        "state",
        "an agent waits for a person, has ended, or does so no longer",
        ("agent", "state", "detail"),
    )
    HEARTBEAT = (
        "heartbeat",
        "a heartbeat has completed",
        ("number", "started", "to_start", "poked", "held", "left", "requeued"),
    )
    HEARTBEAT_FAILED = "heartbeat_failed", "a heartbeat got no answer and does not count", ("detail",)
    DAEMON_STARTED = "daemon_started", "a process has taken charge of the town's state", ("pid",)
    DAEMON_STOPPED = "daemon_stopped", "that process has given it up", ("pid",)
    RESTORED = "restored", "Redis was empty and has been restored from disk", ("detail",)
    REWOUND = (
        "rewound",
        "Redis has less than a host has seen: emptied, or older",
        ("detail",),
    )


FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "event": "the name of the event; every entry has it",
        "agent": "the agent's canonical address; `*` is the whole town",
        "request": "the request's id",
        "action": "cycle, restart or shutdown",
        "detail": "text for people: the reason, or the new desired state",
        "session": "the name of the tmux session",
        "pid": "the pid of the session's program, or of the process in charge of the town's state",
        "state": "what is seen of the agent now",
        "outcome": "delivered, or `held: …` or `failed: …` with the reason",
        "number": "the number of the heartbeat since the daemon started",
        "started": "agents whose session has started since the last heartbeat",
        "to_start": "agents whose start was asked for; an event of each says how that ended",
        "poked": "agents whose poke was delivered",
        "held": "agents whose poke was not",
        "left": "agents for which nothing had to be done",
        "requeued": "requests that were queued again because no worker had them",
    }
)
"""What each field of an event holds."""


@dataclass(frozen=True)
class Event:
    """An entry. Its id is its place in the stream: milliseconds since the epoch, a dash, a number."""

    id: str
    fields: Mapping[str, str]

    @property
    def epoch(self) -> float:
        """When it was recorded, in seconds since the epoch."""
        return int(self.id.partition("-")[0]) / 1000


def record_event(redis: Redis, keys: Keys, event: EventName, **facts: object) -> None:
    """Add an event to the stream; on a pipeline as part of its transaction."""
    entry = {"event": event} | {name: value for name, value in facts.items() if value != ""}
    redis.xadd(keys.events, to_fields(entry), maxlen=keys.events_kept, approximate=True)


def last_id(redis: Redis, keys: Keys) -> str:
    """The id of the newest entry, `0-0` if there is none."""
    return next((event.id for event in read_latest(redis, keys, 1)), "0-0")


def read_after(redis: Redis, keys: Keys, event_id: str, most: int = _PAGE) -> list[Event]:
    """The entries after `event_id`, oldest first, at most `most`."""
    entries: Any = redis.xrange(keys.events, min=f"({event_id}", count=most)
    return [_event(*entry) for entry in entries]


def read_latest(redis: Redis, keys: Keys, most: int) -> list[Event]:
    """The newest `most` entries, oldest first."""
    entries: Any = redis.xrevrange(keys.events, count=most)
    return [_event(*entry) for entry in reversed(entries)]


def iter_newest_first(redis: Redis, keys: Keys, *, since: float = 0.0, until: str = "+") -> Iterator[Event]:
    """The entries from `since` (seconds since the epoch) to the id `until`, read in pages."""
    least = f"{int(since * 1000)}-0"
    while True:
        entries: Any = redis.xrevrange(keys.events, max=until, min=least, count=_PAGE)
        yield from (_event(*entry) for entry in entries)
        if len(entries) < _PAGE:
            return
        until = f"({to_str(entries[-1][0])}"


def read_new(redis: Redis, keys: Keys, event_id: str, wait: float) -> list[Event]:
    """The entries after `event_id`, oldest first; waits at most `wait` seconds for the first.

    `redis` must allow blocking reads of that length.
    """
    streams: Any = redis.xread({keys.events: event_id}, count=_PAGE, block=int(wait * 1000))
    return [_event(*entry) for _, entries in streams or () for entry in entries]


def _event(event_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    return Event(to_str(event_id), to_str_dict(fields))
