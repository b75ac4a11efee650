"""A report of one town: each part is asked once, with a deadline; one that does not answer is `unknown`."""

import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import psutil
from redis import Redis
from redis.exceptions import RedisError
from rq.suspension import is_suspended
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, RedisUnavailable, SettingsError
from gastown_mail.contracts.go_formats import ZERO_TIME, parse_time
from gastown_mail.contracts.private import private_file
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.contracts.state import State, load_state, state_file
from gastown_mail.daemon.schedule import next_due
from gastown_mail.daemon.service import redis_url
from gastown_mail.mail.inbox import read_elements
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import connect, redis_errors, to_str, to_strs
from gastown_mail.plumbing.embedded import is_server_running
from gastown_mail.plumbing.locks import LockHolder, TownLock, as_served
from gastown_mail.sessions.panes import Snapshot
from gastown_mail.status.health import unreachable, with_verdict
from gastown_mail.status.model import (
    AgentStatus,
    Daemon,
    Heartbeat,
    Host,
    InboxStatus,
    Report,
    Source,
    StateSource,
    age,
    known_time,
)
from gastown_mail.status.rows import agent_status
from gastown_mail.town.lease import LeaseOwner
from gastown_mail.town.observed import Observation, observe_all
from gastown_mail.town.records import AgentRecord
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

_ANSWER_DEADLINE = 1.5
"""Seconds that Redis, and that tmux, may take for one answer."""

_WORKER_TIMEOUT = timedelta(seconds=45)
"""A worker that was silent for so long is dead: an idle one reports every 15 s, a busy one every 30 s."""

_PEEK_LIMIT = 10
"""How many elements are read for the age of the oldest: one that is not a request has no timestamp."""

_STALLED_AFTER = 10.0
"""Seconds without anything accepted after which a second look tells whether the clerk makes headway."""

_SECOND_LOOK = 1.0
"""Seconds until then: longer than the clerk takes for one batch."""

_T = TypeVar("_T")


def collect_report(root: Path) -> Report:
    """The town in `root` at this moment.

    Raises SettingsError if its settings are broken and no daemon runs.
    """
    try:
        settings = as_served(load_settings(root, environ=os.environ))
    except SettingsError as error:
        holder = TownLock.holder(private_file(root / "daemon", "daemon.lock"))
        if holder is None:
            raise
        return _report_without_settings(root, holder, str(error))
    collector = StatusCollector(settings)
    with collector.town.redis:
        return collector.report()


class StatusCollector:
    """Asks the parts of one town. `unknown`: which did not answer, and why; `failure`: the first error."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.holder = TownLock.holder(settings.lock_file)
        # Pids mean nothing here if the daemon runs in another container.
        self.same_machine = self.holder is not None and self.holder.pid is not None
        self.unknown: dict[Source, str] = {}
        self.failure: GastownError | None = None
        url = redis_url(settings)
        redis = connect(url, deadline=_ANSWER_DEADLINE)
        self.town = Town(settings, url, redis, tmux_deadline=_ANSWER_DEADLINE)
        self.now = self.town.clock.now_or_local()

    def report(self) -> Report:
        """All parts, with the verdict."""
        self.ask_redis("redis", self.ping)
        state, source, state_age = self._state()
        roster, keys = self._ask("roster", self.town.roster), self.town.keys
        agents = self.agents(roster) if roster else None
        due = self.ask_redis(
            "schedule",
            lambda: next_due(keys.town, self.town.redis, keys.job_id("heartbeat", self.town.host)),
        )
        return with_verdict(
            Report(
                town=self.settings.town_name, root=str(self.settings.town_root), asked=self.now,
                paused=self.ask_redis("records", self.town.is_paused),
                suspended=self.ask_redis("redis", lambda: bool(is_suspended(self.town.redis))),
                replicas_missing=self.ask_redis("redis", self._replicas_missing) or 0,
                rewound=self.ask_redis("records", self._rewound),
                asks_after=self.settings.daemon.asks_after,
                daemon=_daemon(self.holder, state, source, state_age),
                heartbeat=_heartbeat(state, self.now, due, self.settings.daemon.heartbeat_interval),
                hosts=self.ask_redis("workers", lambda: self.hosts(roster, agents or ())),
                mail=self.ask_redis("mail", self.inbox),
                agents=agents,
                unknown=self.unknown,
            )
        )  # fmt: skip

    def agents(self, roster: Roster) -> list[AgentStatus]:
        """The status of each agent, from one snapshot of tmux and one of the records."""
        agents = list(roster.agents.values())
        addresses = [agent.address for agent in agents]
        records = self.ask_redis("records", lambda: self.town.agents.read_all(addresses))
        sessions, seen = self._ask("tmux", lambda: self._look(agents, records)) or (None, {})
        return [
            agent_status(agent, sessions, seen.get(agent.address), record, self.town.places(), now=self.now)
            for agent, record in zip(agents, records or repeat(None), strict=False)
        ]

    def _look(
        self, agents: Sequence[Agent], records: Sequence[AgentRecord] | None
    ) -> tuple[Snapshot, dict[str, Observation]]:
        town = self.town
        return observe_all(
            town.sessions,
            zip(agents, records or repeat(AgentRecord()), strict=False),
            town.profile_of,
            town.places(),
            self.now,
            limit_wait=self.settings.daemon.poke_backoff_max,
        )

    def ask_redis(self, part: Source, question: Callable[[], _T]) -> _T | None:
        """The answer, or None if it is now in `unknown`; a Redis that was silent once is not asked again."""
        if "redis" in self.unknown:
            return None

        def ask() -> _T:
            with redis_errors(self.town.redis_url):
                return question()

        return self._ask(part, ask)

    def _ask(self, part: Source, question: Callable[[], _T]) -> _T | None:
        try:
            return question()
        except (GastownError, RedisError, OSError, ValueError) as error:
            self.unknown["redis" if isinstance(error, RedisUnavailable) else part] = str(error)
            ours = error if isinstance(error, GastownError) else GastownError(f"{unreachable(part)}: {error}")
            self.failure = self.failure or ours
            return None

    def ping(self) -> None:
        """Raise RedisUnavailable or RedisError unless Redis answers."""
        if not (self.settings.daemon.redis_url or is_server_running(self.settings.redis_dir)):
            raise RedisUnavailable(
                "the town's own server does not run; it starts with the daemon: gastown-mail up or start"
            )
        self.town.redis.ping()

    def _state(self) -> tuple[State | None, StateSource, float | None]:
        """The daemon's state, where it was read, and how many seconds old it is."""
        state = self.ask_redis("state", self.town.state.read)
        if state not in (None, State()):
            return state, "redis", 0.0
        root = self.settings.town_root
        return self._ask("state", lambda: load_state(root)), "state.json", _state_file_age(root, self.now)

    def _replicas_missing(self) -> int:
        least = self.settings.daemon.min_replicas
        if not least:
            return 0
        return max(0, least - int(self.town.redis.info("replication").get("connected_slaves", 0)))

    def _rewound(self) -> datetime | None:
        at = self.town.revision.read().rewound_at
        return datetime.fromtimestamp(at, UTC) if at else None

    def hosts(self, roster: Roster | None, rows: Sequence[AgentStatus]) -> list[Host]:
        """The live workers of each host that has agents, and of this one. Raises RedisError."""
        keys, here = self.town.keys, self.town.host
        declared = {agent.declared_host for agent in (roster.agents.values() if roster else ())}
        away: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.observed == "elsewhere":
                away[row.host].append(row.agent)
        names = sorted({here, *declared, *away, *self.town.hosts.live()} - {""})
        queues = [queue(name) for name in names for queue in (keys.lifecycle_queue, keys.heartbeat_queue)]
        alive = [
            sum(worker.is_alive(self.now, same_machine=self.same_machine) for worker in workers)
            for workers in _registered_workers(self.town.redis, queues)
        ]
        expected = {here: self.settings.daemon.workers}
        return [
            Host(
                host=name, here=name == here, lifecycle=lifecycle, expected=expected.get(name),
                heartbeat=heartbeat, seen=self.town.hosts.last_seen(name), agents=away[name],
            )
            for name, lifecycle, heartbeat in zip(names, alive[::2], alive[1::2], strict=True)
        ]  # fmt: skip

    def inbox(self) -> InboxStatus:
        """What is waiting, and where. Raises RedisError."""
        keys, now, redis = self.town.keys, self.now, self.town.redis
        with redis.pipeline(transaction=False) as pipe:
            pipe.llen(keys.inbox)
            pipe.llen(keys.taken)
            pipe.zcard(keys.unsettled)
            pipe.zrange(keys.unsettled, 0, 0, withscores=True)
            pipe.get(keys.clerk)
            inbox, taken, unsettled, oldest, clerk = pipe.execute()
        waiting, in_hand = (read_elements(redis, key, _PEEK_LIMIT) for key in (keys.inbox, keys.taken))
        received = datetime.fromtimestamp(oldest[0][1], UTC) if oldest else None
        owner = LeaseOwner.parse(to_str(clerk))
        alive = owner is not None and not owner.is_dead(self.town.host)
        if alive and owner and self.same_machine and owner.host == self.town.host:
            alive = _is_running(owner.pid)
        return InboxStatus(
            clerk=alive,
            inbox=inbox, inbox_oldest=_oldest_age(waiting, now),
            taken=taken, taken_oldest=_oldest_age(in_hand, now),
            open=unsettled, open_oldest=age(received, now),
            dead=DeadLetters(redis, keys).count(),
            stalled=self._stalled() if alive else None,
        )  # fmt: skip

    def _stalled(self) -> float | None:
        """How long ago the clerk last accepted something, if it does not even while this looks twice."""
        first = self._headway()
        if first is None or first[0] < _STALLED_AFTER:
            return None
        time.sleep(_SECOND_LOOK)
        second = self._headway()
        return second[0] if second and second[1] == first[1] else None

    def _headway(self) -> tuple[float, str] | None:
        """Seconds since the clerk accepted something or began, and when that was; None if nothing waits."""
        keys, redis = self.town.keys, self.town.redis
        if not redis.exists(keys.inbox, keys.taken):
            return None
        at = to_str(redis.get(keys.accepted))
        return (redis_time(redis) - float(at), at) if at else None


def _report_without_settings(root: Path, holder: LockHolder, why: str) -> Report:
    """What the disk and the kernel know about a daemon whose settings cannot be read now."""
    now, state = datetime.now(UTC), None
    unknown: dict[Source, str] = {"settings": f"{why}; the daemon keeps the settings it read before"}
    try:
        state = load_state(root)
    except GastownError as error:
        unknown["state"] = str(error)
    daemon = _daemon(holder, state, "state.json", _state_file_age(root, now))
    return with_verdict(
        Report(
            town=None, root=str(root), asked=now, unknown=unknown, daemon=daemon,
            heartbeat=_heartbeat(state, now),
        )
    )  # fmt: skip


def _state_file_age(root: Path, now: datetime) -> float | None:
    try:
        return age(datetime.fromtimestamp(state_file(root).stat().st_mtime, UTC), now)
    except OSError:
        return None


def _daemon(
    holder: LockHolder | None, state: State | None, source: StateSource, state_age: float | None
) -> Daemon:
    held, pid = holder is not None, holder.pid if holder else None
    frozen = pid is not None and not _is_running(pid)
    if state is None:
        return Daemon(held=held, pid=pid, frozen=frozen)
    # A state that another process left says nothing about the one that has the lock now.
    running = state.running and pid in (None, state.pid)
    return Daemon(
        held=held, pid=pid, frozen=frozen, running=running,
        since=known_time(state.started_at) if held and running else None,
        state_from=source, state_age=state_age,
    )  # fmt: skip


def _heartbeat(
    state: State | None, now: datetime, due: datetime | None = None, interval: float | None = None
) -> Heartbeat | None:
    if state is None:
        return None
    last = known_time(state.last_heartbeat)
    due_in = round((due - now).total_seconds(), 3) if due else None
    return Heartbeat(
        count=state.heartbeat_count, last=last, age=age(last, now), next=due, due_in=due_in, interval=interval
    )


def _oldest_age(elements: Sequence[bytes], now: datetime) -> float | None:
    """Seconds since the timestamp of the first element that has one."""
    for element in elements:
        try:
            return age(parse_time(json.loads(element)["timestamp"]), now)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return None


@dataclass(frozen=True)
class _WorkerInfo:
    """What an rq worker reports to Redis: its pid, its machine, and when it last reported."""

    pid: int
    machine: str
    last_seen: datetime

    def is_alive(self, now: datetime, *, same_machine: bool) -> bool:
        """Whether it is working. `same_machine`: pids of this host name can be looked up here."""
        if now - self.last_seen > _WORKER_TIMEOUT:
            return False
        return _is_running(self.pid) if same_machine and self.machine == socket.gethostname() else True


def _registered_workers(redis: Redis, queues: Sequence[str]) -> list[list[_WorkerInfo]]:
    """For each of these queues, the workers that Redis knows; dead ones may be among them."""
    with redis.pipeline(transaction=False) as pipe:
        for name in queues:
            pipe.smembers(WORKERS_BY_QUEUE_KEY % name)
        keys = [sorted(answer) for answer in pipe.execute()]
        for key in (key for of_queue in keys for key in of_queue):
            pipe.hmget(key, ["pid", "hostname", "last_heartbeat"])
        answers = map(to_strs, pipe.execute())
    workers = (
        _WorkerInfo(int(pid or 0), machine, parse_time(last_seen) if last_seen else ZERO_TIME)
        for pid, machine, last_seen in answers
    )
    return [[next(workers) for _ in of_queue] for of_queue in keys]


def _is_running(pid: int) -> bool:
    """Whether the process exists and is neither a zombie nor suspended, as far as this user can see."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
