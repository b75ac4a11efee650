"""The parts of a report, each made of what was read for it: daemon, heartbeat, requests."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gastown_mail.cli.report import Daemon, Heartbeat, InboxStatus, StateSource
from gastown_mail.cli.rows import age, moment
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.state import State, state_file
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.plumbing.connections import to_str
from gastown_mail.plumbing.locks import LockHolder
from gastown_mail.status.rq_workers import is_running
from gastown_mail.town.lease import LeaseOwner as Clerk
from gastown_mail.town.town import Town

PEEK_LIMIT = 10
"""So many elements are read to find the age of the oldest: what is no request has no timestamp."""


def written_ago(root: Path, now: datetime) -> float | None:
    """How old state.json is, in seconds; None when there is none."""
    try:
        written = state_file(root).stat().st_mtime
    except OSError:
        return None
    return age(datetime.fromtimestamp(written, UTC), now)


def daemon_part(
    holder: LockHolder | None, state: State | None, source: StateSource, state_age: float | None
) -> Daemon:
    """The daemon as its lock and its state tell of it, which was read from `source`."""
    held, pid = holder is not None, holder.pid if holder else None
    frozen = pid is not None and not is_running(pid)
    if state is None:
        return Daemon(held=held, pid=pid, frozen=frozen)
    # A state that another process left says nothing of the one that has the lock now.
    running = state.running and pid in (None, state.pid)
    return Daemon(
        held=held, pid=pid or (state.pid if held and running else None), frozen=frozen, running=running,
        since=moment(state.started_at) if held and running else None,
        state_from=source, state_age=state_age,
    )  # fmt: skip


def heartbeat_part(
    state: State | None, now: datetime, due: datetime | None = None, interval: float | None = None
) -> Heartbeat | None:
    """The heartbeats, None when no state can be read."""
    if state is None:
        return None
    last = moment(state.last_heartbeat)
    return Heartbeat(
        count=state.heartbeat_count, last=last, age=age(last, now) if last else None, next=due,
        due_in=round((due - now).total_seconds(), 3) if due else None, interval=interval,
    )  # fmt: skip


def mail_part(town: Town, now: datetime, *, near: bool) -> InboxStatus:
    """What waits where, and how long the oldest has (`near`: see `Worker.lives`); raises RedisError."""
    keys = town.keys
    with town.redis.pipeline(transaction=False) as pipe:
        for elements in (keys.inbox, keys.taken):
            pipe.llen(elements)
            pipe.lrange(elements, 0, PEEK_LIMIT - 1)
        pipe.zcard(keys.unsettled)
        pipe.zrange(keys.unsettled, 0, 0, withscores=True)
        pipe.get(keys.clerk)
        inbox, waiting, taken, in_hand, opened, oldest, clerk = pipe.execute()
    received = datetime.fromtimestamp(oldest[0][1], UTC) if oldest else None
    return InboxStatus(
        clerk=_clerk_is_alive(to_str(clerk), town.host, near),
        inbox=inbox,
        inbox_oldest=age_of_oldest(waiting, now),
        taken=taken,
        taken_oldest=age_of_oldest(in_hand, now),
        open=opened,
        open_oldest=age(received, now) if received else None,
        dead=len(DeadLetters(town.redis, keys).ids()),
    )


def _clerk_is_alive(token: str, host: str, near: bool) -> bool:
    clerk = Clerk.parse(token)
    if clerk is None or clerk.is_dead(host):
        return False
    return is_running(clerk.pid) if near and clerk.host == host else True


def age_of_oldest(elements: Sequence[bytes], now: datetime) -> float | None:
    """Seconds since the timestamp of the first element that has one."""
    asked = next((at for at in map(_asked_at, elements) if at is not None), None)
    return None if asked is None else age(asked, now)


def _asked_at(element: bytes) -> datetime | None:
    try:
        read: Any = json.loads(element)
        return parse_time(read["timestamp"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
