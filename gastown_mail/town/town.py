"""One town as a process of the daemon sees it: its settings, Redis, tmux, agents and records."""

import logging
import os
from collections.abc import Mapping

from redis import Redis

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.settings import Settings
from gastown_mail.mail.requests import RequestStore
from gastown_mail.plumbing.connections import connect
from gastown_mail.plumbing.log import log_event
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.tmux import CALL_DEADLINE, Tmux
from gastown_mail.town.queues import JobQueues
from gastown_mail.town.records import AgentStore, DesiredStates, TownStateStore
from gastown_mail.town.roster import Roster, RosterCache

log = logging.getLogger(__name__)


class Town:
    """Everything that the clerk, the jobs and the command line need to serve one town."""

    def __init__(
        self, settings: Settings, redis_url: str, redis: Redis, fallback_roster: Roster | None = None,
        tmux_deadline: float = CALL_DEADLINE,
    ) -> None:  # fmt: skip
        self.settings, self.redis_url, self.redis = settings, redis_url, redis
        daemon = settings.daemon
        # a request is known by its id for as long as it may still be carried out
        kept = max(daemon.requests_kept, daemon.max_request_age)
        self.keys = Keys(settings.town_name, daemon.events_kept, kept)
        self.requests = RequestStore(redis, self.keys)
        self.queues = JobQueues(redis, self.keys)
        self.agents = AgentStore(redis, self.keys)
        self.desired = DesiredStates(self.agents, settings.daemon_dir)
        self.state = TownStateStore(redis, self.keys, settings.town_root)
        self.sessions = Sessions(Tmux(settings.tmux_socket, deadline=tmux_deadline, environ=os.environ))
        self._roster = RosterCache(settings, fallback_roster)

    @classmethod
    def open(
        cls, settings: Settings, redis_url: str, *, blocking: float = 0.0,
        fallback_roster: Roster | None = None, tmux_deadline: float = CALL_DEADLINE,
    ) -> "Town":  # fmt: skip
        """The town with a Redis connection of its own; `blocking` as in `plumbing.connections.connect`.

        `fallback_roster` is used while the one on disk cannot be read; `tmux_deadline` is in seconds.
        """
        return cls(settings, redis_url, connect(redis_url, blocking=blocking), fallback_roster, tmux_deadline)

    @property
    def host(self) -> str:
        """The name under which this machine's workers serve agents."""
        return self.settings.host

    def roster(self) -> Roster:
        """The agents of the town, at most a second old. Raises SettingsError if it was never readable."""
        return self._roster.current()

    def local_agents(self) -> Mapping[str, Agent]:
        """The agents that live on this host, by address."""
        return {address: agent for address, agent in self.roster().agents.items() if agent.host == self.host}

    def is_paused(self) -> bool:
        """Whether an operator has paused the whole town."""
        return self.desired.is_town_paused()

    def save_desired(self, *addresses: str) -> None:
        """Write the desired states (of these agents only, if any are named) to disk; an error is logged."""
        try:
            self.desired.save(*addresses)
        except GastownError as error:
            log_event(log, "desired_not_kept", level=logging.ERROR, detail=str(error))

    def enqueue_next(self, address: str) -> None:
        """Enqueue the oldest open request: its job may have found the lease taken and done nothing."""
        pending = self.requests.pending(address)
        agent = self.roster().agents.get(address)
        if pending and agent:
            self.queues.enqueue_request(pending[0], agent)
