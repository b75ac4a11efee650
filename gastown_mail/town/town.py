"""One town as a daemon process sees it: its settings, its Redis, its tmux, its agents."""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from redis import Redis

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, StateFileError, StateUnknown
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.mail.events import record_event
from gastown_mail.mail.requests import RequestStore
from gastown_mail.plumbing.connections import connect
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.town.discovery import fingerprint
from gastown_mail.town.queues import JobQueues
from gastown_mail.town.records import AgentStore, DesiredStates, TownStateStore
from gastown_mail.town.roster import Roster, load_roster

ROSTER_TTL = 1.0
"""Seconds for which the roster is believed without a look; a new agent is known after that at the latest."""

ROSTER_MAX_AGE = 60.0
"""Seconds after which it is read again although nothing shows a change: where a link leads may have one."""

log = logging.getLogger(__name__)


class Town:
    """Everything that the clerk, the jobs and the command line need to serve one town."""

    def __init__(
        self, settings: Settings, redis_url: str, redis: Redis, fallback_roster: Roster | None = None
    ) -> None:
        self.settings = settings
        self.redis_url = redis_url
        self.redis = redis
        self.keys = _keys(settings)
        self.requests = RequestStore(redis, self.keys)
        self.queues = JobQueues(redis, self.keys)
        self.agents = AgentStore(redis, self.keys)
        self.desired = DesiredStates(self.agents, settings.daemon_dir)
        self.state = TownStateStore(redis, self.keys, settings.town_root)
        self.sessions = Sessions(Tmux(settings.tmux_socket, environ=os.environ))
        self._roster = fallback_roster
        self._signs: tuple[object, ...] | None = None
        self._looked_at = self._read_at = -math.inf
        self._reading = threading.Lock()

    @classmethod
    def open(
        cls,
        settings: Settings,
        redis_url: str,
        *,
        blocking: float = 0.0,
        fallback_roster: Roster | None = None,
    ) -> "Town":
        """The town with a connection of its own; `blocking` as in `plumbing.connections.connect`.

        `known`: the roster that holds as long as the one on disk cannot be read.
        """
        return cls(settings, redis_url, connect(redis_url, blocking=blocking), fallback_roster)

    @property
    def host(self) -> str:
        """The name under which this machine's workers serve agents."""
        return self.settings.host

    def roster(self) -> Roster:
        """The agents of the town, as they were `ROSTER_AGE` ago or later.

        A town.toml that is broken while the daemon runs changes nothing but the log; at the start it
        raises SettingsError.
        """
        with self._reading:
            if self._roster is None or time.monotonic() - self._looked_at >= ROSTER_TTL:
                self._roster = self._look_at_roster(self._roster)
            return self._roster

    def _look_at_roster(self, known: Roster | None) -> Roster:
        """`known` if nothing shows a change. What could not be read whole is read again the next time."""
        self._looked_at = time.monotonic()
        found = fingerprint(self.settings.town_root, time.time())
        unchanged = found is not None and found == self._signs
        if known is not None and unchanged and self._looked_at < self._read_at + ROSTER_MAX_AGE:
            return known
        current = self._read_roster(known)
        whole = current is not known and not current.discovery_warnings
        self._signs, self._read_at = found if whole else None, self._looked_at
        return current

    def is_paused(self) -> bool:
        """Has an operator paused the whole town?"""
        return self.desired.is_town_paused()

    def ensure_running(self) -> None:
        """Raise Unknown while nothing may be begun: the town is paused, or its daemon is stopping."""
        self.recover_after_flush()
        if self.redis.hget(self.keys.state, "running") == b"false":
            raise StateUnknown("the daemon is stopping; it goes on after the next start")
        if self.is_paused():
            raise StateUnknown("the town is paused; it goes on after gastown-mail resume")

    def save_desired(self, *only: str) -> None:
        """Mirror what should be (of `only` these) to the disk; one that refuses is said and stops nobody."""
        try:
            self.desired.save(*only)
        except GastownError as error:
            log_event(log, "desired_not_kept", level=logging.ERROR, detail=str(error))

    def recover_after_flush(self) -> None:
        """After Redis was emptied: bring back what the disk and tmux still know; else do nothing.

        Raises Unknown when the disk's files cannot be read: what was stopped must not be started on it.
        """
        try:
            state = self.state.state_before_flush()
            if state is None:
                return
            self.desired.restore()
        except StateFileError as error:
            raise StateUnknown(str(error)) from error
        for session in self.sessions.snapshot().values():
            if session.incarnation and session.agent:
                self._re_register(session)
        self.state.restore(state)
        record_event(
            self.redis, self.keys, "restored", detail="Redis was empty; state, wishes and sessions are back"
        )

    def _re_register(self, session: Session) -> None:
        started = datetime.fromtimestamp(session.started_at, UTC)
        self.agents.write(
            session.agent, session=session.name, incarnation=session.incarnation, started_at=started
        )

    def enqueue_next(self, address: str) -> None:
        """Enqueue the oldest open request: its job may have found the lease taken and done nothing."""
        pending = self.requests.pending(address)
        agent = self.roster().agents.get(address)
        if pending and agent:
            self.queues.enqueue_request(pending[0], agent)

    def local_agents(self) -> Mapping[str, Agent]:
        """The agents that live on this host, by address."""
        return {address: agent for address, agent in self.roster().agents.items() if agent.host == self.host}

    def _read_roster(self, last_good: Roster | None) -> Roster:
        try:
            current = load_settings(self.settings.town_root, environ=os.environ)
            return load_roster(current.model_copy(update={"daemon": self.settings.daemon}))
        except GastownError as error:
            if last_good is None:
                raise
            log_event(log, "roster_kept", level=logging.WARNING, detail=str(error))
            return last_good


def _keys(settings: Settings) -> Keys:
    """Where the town's data lies. As long as a request may be carried out, the same id is no second one."""
    ours = settings.daemon
    return Keys(settings.town_name, ours.events_kept, max(ours.requests_kept, ours.max_request_age))
