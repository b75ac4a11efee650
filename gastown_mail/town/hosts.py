"""The hosts of a town: what each daemon says of itself, in Redis and in state.json, and which ones live.

Redis keeps the state of each host (`state:<host>`), the original of that host's state.json, and a summary
(`state`): running if any host runs, the rest of the one that beat last.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from gastown_mail.contracts.errors import SettingsError, StateFileError
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.identity import load_identity
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.private import private_file
from gastown_mail.contracts.state import State, load_state, save_state
from gastown_mail.contracts.validation import RedisHash
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import read_hash, read_hashes, to_fields, to_str, to_strs
from gastown_mail.plumbing.locks import file_lock

LIVE_SECONDS = 20.0
"""A host that has not reported for so long is not taken for alive."""

REPORT_EVERY = 5.0
"""Seconds between two reports of a host."""

_CLAIM_POLL = 0.5
_FORGET_AFTER = 30 * 24 * 3600.0
_LOCK_TIMEOUT = 5.0
"""Seconds to wait while another process writes `state.json`."""


class HostEntry(RedisHash):
    """What a host says of itself: `machine`, `folder`, `root` of identity.json, and the kernel's `boot`.

    `roster`: its agents, for `town.directory`. `town_toml`: a digest of that file. `clock_ahead`: by how many
    seconds its clock is ahead of that of Redis.
    """

    machine: str = ""
    boot: str = ""
    folder: str = ""
    root: str = ""
    roster: str = ""
    town_toml: str = ""
    clock_ahead: float = 0.0

    def is_same(self, other: "HostEntry") -> bool:
        """Whether both are one host, whatever its folder is called."""
        return (self.machine, self.boot, self.folder) == (other.machine, other.boot, other.folder)


@dataclass(frozen=True)
class _Conflict:
    reason: str
    may_end: bool = False


@dataclass(frozen=True)
class Hosts:
    """The hosts of one town, as they have reported to Redis; times are those of its clock."""

    redis: Redis
    keys: Keys

    def report(self, host: str, entry: HostEntry) -> None:
        """Say that this host is alive; `clock_ahead` is filled in."""
        before = time.time()
        now = redis_time(self.redis)
        after = time.time()
        # no more than is certain: the answer may have taken long
        ahead = 0.0 if before <= now <= after else round((before + after) / 2 - now, 3)
        entry = entry.model_copy(update={"clock_ahead": ahead})
        with self.redis.pipeline() as pipe:
            pipe.hset(self.keys.host(host), mapping=to_fields(entry.to_mapping()))
            pipe.zadd(self.keys.hosts, {host: now})
            pipe.zremrangebyscore(self.keys.hosts, "-inf", now - _FORGET_AFTER)
            pipe.pexpire(self.keys.host(host), int(_FORGET_AFTER * 1000))
            pipe.execute()

    def report_end(self, host: str) -> None:
        """Say that this host's daemon has stopped."""
        self.redis.zadd(self.keys.hosts, {host: redis_time(self.redis) - LIVE_SECONDS}, xx=True)

    def last_seen(self, host: str) -> datetime | None:
        """When the host reported last; None if it never did."""
        score = self.redis.zscore(self.keys.hosts, host)
        return None if score is None else datetime.fromtimestamp(float(score), UTC)

    def live(self) -> list[str]:
        """The hosts that are alive."""
        now = redis_time(self.redis)
        oldest, newest = f"({now - LIVE_SECONDS}", now + LIVE_SECONDS
        return to_strs(self.redis.zrange(self.keys.hosts, oldest, newest, byscore=True))

    def live_entries(self) -> dict[str, HostEntry]:
        """What the hosts that are alive say of themselves."""
        names = self.live()
        entries = read_hashes(self.redis, map(self.keys.host, names))
        return {name: HostEntry.from_mapping(fields) for name, fields in zip(names, entries, strict=True)}

    def clocks(self) -> dict[str, float]:
        """By how many seconds the clock of each living host is ahead of that of Redis."""
        names = self.live()
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self.keys.host(name), "clock_ahead")
            found = to_strs(pipe.execute())
        entries = [HostEntry.from_mapping({"clock_ahead": text or "0"}) for text in found]
        return {name: entry.clock_ahead for name, entry in zip(names, entries, strict=True)}

    def oldest_report(self) -> float:
        """When the living host that was silent for longest has reported (epoch seconds of Redis)."""
        oldest = redis_time(self.redis) - LIVE_SECONDS
        found: list[Any] = self.redis.zrange(
            self.keys.hosts, f"({oldest}", "+inf", byscore=True, offset=0, num=1, withscores=True
        )
        return float(found[0][1]) if found else math.inf

    def claim(self, host: str, entry: HostEntry) -> None:
        """Wait until a host of this name from before a reboot is silent.

        Raises SettingsError if a living host has this name, or serves this folder under another name.
        """
        until = time.monotonic() + LIVE_SECONDS + REPORT_EVERY
        while (conflict := self._conflict(host, entry)) and conflict.may_end and time.monotonic() < until:
            time.sleep(_CLAIM_POLL)
        if conflict:
            raise SettingsError(conflict.reason)

    def _conflict(self, host: str, entry: HostEntry) -> "_Conflict | None":
        for name, other in self.live_entries().items():
            if name == host and not other.is_same(entry):
                where = "this machine" if other.boot == entry.boot else "another machine"
                return _Conflict(
                    f"the host name {host} is taken: a daemon on {where} serves {other.root} under it. Give "
                    "this one another with host in [daemon] of town.toml, or with GASTOWN_HOST",
                    may_end=(other.machine, other.folder) == (entry.machine, entry.folder),
                )
            if name != host and entry.machine and other.machine == entry.machine:
                return _Conflict(
                    f"{other.root} is served as host {name}, and this would be host {host} on the same "
                    "folder or a copy of it: give each host a folder of its own, with a copy of town.toml "
                    "and nothing of daemon/"
                )
        last = HostEntry.from_mapping(read_hash(self.redis, self.keys.host(host)))
        if last.machine not in ("", entry.machine) and _is_folder_of(last):
            return _Conflict(
                f"the town {self.keys.town} on this Redis is that of {last.root}: give this one another "
                "town_name, or another host if both are to serve one town"
            )
        return None


def _is_folder_of(entry: HostEntry) -> bool:
    """Whether the folder of this host is on this machine."""
    try:
        return load_identity(Path(entry.root) / "daemon").machine == entry.machine
    except StateFileError:
        return False


@dataclass(frozen=True)
class HostStateStore:
    """The state of one host, and the town's summary. `state.json` under `root` is a copy of the host's."""

    redis: Redis
    keys: Keys
    root: Path
    host: str

    def read(self) -> State:
        """The host's state in Redis; the zero state if there is none."""
        return State.from_mapping(read_hash(self.redis, self._key))

    def mark_started(self, pid: int, now: datetime) -> None:
        """Record that a daemon has started, and count heartbeats from 0."""
        self._write(State(running=True, pid=pid, started_at=now, heartbeat_count=0).to_mapping())

    def is_stopping(self) -> bool:
        """Whether this host's daemon has announced that it stops, or has stopped."""
        return to_str(self.redis.hget(self._key, "running")) == "false"

    def state_before_flush(self) -> State | None:
        """The state in `state.json` if Redis has lost it, None if Redis was not emptied."""
        # only started_at counts: other fields are written again before everything is restored
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.hexists(self._key, "started_at")
            pipe.hexists(self.keys.state, "started_at")
            pipe.exists(self.keys.hosts)
            known, summary, hosts = pipe.execute()
        # a town of the previous version has only the summary
        if known or (summary and not hosts):
            return None
        state = load_state(self.root)
        return None if state == State() else state

    def restore(self, state: State) -> None:
        """Put the state from `state.json` back into Redis."""
        self._store(state.to_mapping())

    def restore_file(self) -> None:
        """The same from the file, which is newer than a Redis that came back older. Raises StateFileError."""
        if (state := load_state(self.root)) != State():
            self.restore(state)

    def mark_stopping(self) -> None:
        """Record that the daemon is about to stop: workers of this host begin nothing new."""
        self._store({"running": "false"})

    def mark_stopped(self) -> None:
        """Record that the daemon has stopped cleanly."""
        self._write({"running": "false"})

    def count_heartbeat(self, now: datetime) -> State:
        """Count a completed heartbeat; return the state that is now in Redis and in the file."""
        with self.redis.pipeline() as pipe:
            pipe.hincrby(self._key, "heartbeat_count", 1)
            pipe.hset(self._key, "last_heartbeat", format_time(now))
            pipe.execute()
        state = self.write_state_file()
        self._summarize(state.to_mapping())
        return state

    def write_state_file(self) -> State:
        """Copy the state from Redis to `state.json`, unless Redis was emptied."""
        with file_lock(private_file(self.root / "daemon", "state.lock"), _LOCK_TIMEOUT):
            state = self.read()
            if self.state_before_flush() is None:
                save_state(self.root, state)
        return state

    @property
    def _key(self) -> str:
        return self.keys.state_of(self.host)

    def _write(self, values: Mapping[str, str]) -> None:
        self._store(values)
        self.write_state_file()

    def _store(self, values: Mapping[str, str]) -> None:
        self.redis.hset(self._key, mapping=to_fields(values))
        self._summarize(values)

    def _summarize(self, values: Mapping[str, str]) -> None:
        """Write these values of the host into the town's summary."""
        others = [name for name in Hosts(self.redis, self.keys).live() if name != self.host]
        states = read_hashes(self.redis, map(self.keys.state_of, others))
        running = values.get("running") == "true" or any(one.get("running") == "true" for one in states)
        rest = values if "started_at" in values or not others else {}
        self.redis.hset(self.keys.state, mapping=to_fields({**rest, "running": str(running).lower()}))
