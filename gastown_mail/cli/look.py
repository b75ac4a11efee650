"""One look at a town: each part is asked now, with a deadline; what does not answer is noted as unknown."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from gastown_mail.cli.options import find_root, load
from gastown_mail.cli.parts import daemon_part, heartbeat_part, mail_part, written_ago
from gastown_mail.cli.report import AgentStatus, Host, Report, Source, StateSource
from gastown_mail.cli.rows import agent_status
from gastown_mail.cli.troubles import SILENT, with_verdict
from gastown_mail.contracts.errors import GastownError, RedisUnavailable, SettingsError
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import State, load_state
from gastown_mail.daemon.schedule import next_due
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.connections import connect, redis_errors
from gastown_mail.plumbing.embedded import is_server_running
from gastown_mail.plumbing.locks import LockHolder, TownLock
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.status.rq_workers import registered_workers
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

DEADLINE = 1.5
"""Seconds that Redis, and that tmux, may take for one answer."""

T = TypeVar("T")


def collect_report() -> Report:
    """The town at this moment.

    Raises SettingsError when there is no town, or when its settings are broken and no daemon runs.
    """
    root = find_root()
    try:
        settings = load()
    except SettingsError as error:
        holder = TownLock.holder(root / "daemon" / "daemon.lock")
        if holder is None:
            raise
        return _without_settings(root, holder, str(error))
    look = StatusCollector(settings)
    with look.town.redis:
        return with_verdict(look.report())


def _without_settings(root: Path, holder: LockHolder, why: str) -> Report:
    """What the disk and the kernel tell of a daemon that goes on with settings that nobody can read now."""
    now, state = datetime.now(UTC), None
    unknown: dict[Source, str] = {"settings": f"{why}; the daemon goes on with what it read before"}
    try:
        state = load_state(root)
    except GastownError as error:
        unknown["state"] = str(error)
    return with_verdict(
        Report(
            town=None, root=str(root), asked=now, unknown=unknown,
            daemon=daemon_part(holder, state, "state.json", written_ago(root, now)),
            heartbeat=heartbeat_part(state, now),
        )
    )  # fmt: skip


class StatusCollector:
    """The parts of one town, each asked once. `unknown` says which did not answer, and why."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now = settings, datetime.now(UTC)
        self.holder = TownLock.holder(settings.lock_file)
        self.unknown: dict[Source, str] = {}
        self.failure: GastownError | None = None
        self.town = open_hasty(settings)

    @property
    def near(self) -> bool:
        """Are the daemon's pids seen from here? In another container they are not."""
        return self.holder is not None and self.holder.pid is not None

    def report(self) -> Report:
        """All parts, not yet judged."""
        self.ask_redis("redis", self._ping)
        state, source, state_age = self._state()
        roster = self._ask("roster", self.town.roster)
        due = self.ask_redis("schedule", self._due)
        return Report(
            town=self.settings.town_name, root=str(self.settings.town_root), asked=self.now,
            paused=self.ask_redis("records", self.town.is_paused),
            daemon=daemon_part(self.holder, state, source, state_age),
            heartbeat=heartbeat_part(state, self.now, due, self.settings.daemon.heartbeat_interval),
            hosts=self.ask_redis("workers", lambda: self._hosts(roster)),
            mail=self.ask_redis("mail", lambda: mail_part(self.town, self.now, near=self.near)),
            agents=self.rows(roster) if roster else None,
            unknown=self.unknown,
        )  # fmt: skip

    def rows(self, roster: Roster) -> list[AgentStatus]:
        """A row for each agent, from one look at tmux and one at the records."""
        agents = list(roster.agents.values())
        addresses = [agent.address for agent in agents]
        sessions: dict[str, Session] | None = self._ask("tmux", self.town.sessions.snapshot)
        records = self.ask_redis("records", lambda: self.town.agents.read_all(addresses))
        known = dict(zip(addresses, records or (), strict=False))
        return [
            agent_status(agent, sessions, known.get(agent.address), host=self.town.host, now=self.now)
            for agent in agents
        ]

    def _ask(self, part: Source, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except (GastownError, RedisError, OSError, ValueError) as error:
            self.unknown["redis" if isinstance(error, RedisUnavailable) else part] = str(error)
            said = error if isinstance(error, GastownError) else GastownError(f"{SILENT[part]}: {error}")
            self.failure = self.failure or said
            return None

    def ask_redis(self, part: Source, question: Callable[[], T]) -> T | None:
        """The answer, None when it is now in `unknown`; a Redis that was silent once is not asked again."""
        if "redis" in self.unknown:
            return None

        def asked() -> T:
            with redis_errors(self.town.redis_url):
                return question()

        return self._ask(part, asked)

    def _ping(self) -> None:
        if not (self.settings.daemon.redis_url or is_server_running(self.settings.redis_dir)):
            raise RedisUnavailable("the town's own server does not run; it starts with the daemon")
        self.town.redis.ping()

    def _state(self) -> tuple[State | None, StateSource, float | None]:
        """What the daemon says of itself, in Redis or else in the file, and how old that is (seconds)."""
        state = self.ask_redis("state", self.town.state.read)
        if state not in (None, State()):
            return state, "redis", 0.0
        state = self._ask("state", lambda: load_state(self.settings.town_root))
        return state, "state.json", written_ago(self.settings.town_root, self.now)

    def _due(self) -> datetime | None:
        keys = self.town.keys
        return next_due(keys.town, self.town.redis, keys.job_id("heartbeat", self.town.host))

    def _hosts(self, roster: Roster | None) -> list[Host]:
        agents = roster.agents.values() if roster else ()
        names = sorted({self.town.host, *(agent.host for agent in agents)})
        keys = self.town.keys
        queues = [
            queue for name in names for queue in (keys.lifecycle_queue(name), keys.heartbeat_queue(name))
        ]
        found = registered_workers(self.town.redis, queues)
        counts = [
            sum(worker.is_alive(self.now, same_machine=self.near) for worker in workers) for workers in found
        ]
        return [self._host(*one) for one in zip(names, counts[::2], counts[1::2], strict=True)]

    def _host(self, name: str, lifecycle: int, heartbeat: int) -> Host:
        here = name == self.town.host
        expected = self.settings.daemon.workers if here else None
        return Host(host=name, here=here, lifecycle=lifecycle, expected=expected, heartbeat=heartbeat)


def open_hasty(settings: Settings) -> Town:
    """The town with connections that wait no longer than `DEADLINE` for an answer."""
    url = redis_url(settings)
    town = Town(settings, url, connect(url, deadline=DEADLINE))
    town.sessions = Sessions(Tmux(settings.tmux_socket, deadline=DEADLINE, environ=os.environ))
    return town
