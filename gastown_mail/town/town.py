"""One town as the daemon and the command line see it: settings, Redis, tmux, agents and records."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from redis import Redis

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, Postponed, StateFileError, StateUnknown
from gastown_mail.contracts.identity import Identity, load_identity
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.private import private_file
from gastown_mail.contracts.profile import Profile
from gastown_mail.contracts.settings import TOWN_FILE, Settings
from gastown_mail.contracts.shared_daemons import spared_programs
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.mail.requests import RequestStore
from gastown_mail.plumbing.clock import RedisClock
from gastown_mail.plumbing.connections import confirm_replicas, connect
from gastown_mail.plumbing.log import log_event
from gastown_mail.plumbing.machine import boot_id
from gastown_mail.programs.library import OTHER
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import CALL_DEADLINE, Tmux
from gastown_mail.town.desired import DesiredStates
from gastown_mail.town.directory import Directory, published
from gastown_mail.town.hosts import HostEntry, Hosts, HostStateStore
from gastown_mail.town.identity import socket_of
from gastown_mail.town.places import Places
from gastown_mail.town.queues import JobQueues
from gastown_mail.town.records import AgentRecord, AgentStore, Place
from gastown_mail.town.revision import Revision
from gastown_mail.town.roster import Roster, RosterCache

log = logging.getLogger(__name__)


class Town:
    """Everything that the clerk, the jobs and the command line need to serve one town."""

    def __init__(
        self, settings: Settings, redis_url: str, redis: Redis, fallback_roster: Roster | None = None,
        tmux_deadline: float = CALL_DEADLINE,
    ) -> None:  # fmt: skip
        self.settings, self.redis_url, self.redis = settings, redis_url, redis
        self.host = settings.host
        """The name under which this machine's workers serve agents."""
        daemon = settings.daemon
        # a request is known by its id for as long as it may still be carried out
        kept = max(daemon.requests_kept, daemon.max_request_age)
        self.clock = RedisClock(redis)
        self.keys = Keys(settings.town_name, daemon.events_kept, kept)
        self.requests = RequestStore(redis, self.keys)
        self.queues = JobQueues(redis, self.keys)
        self.agents = AgentStore(redis, self.keys)
        self.state = HostStateStore(redis, self.keys, settings.town_root, self.host)
        self.revision = Revision(redis, self.keys, private_file(settings.daemon_dir, "revision.json"))
        self.desired = DesiredStates(
            self.agents, self.state, settings.daemon_dir, self.clock, self.revision, self.confirm
        )
        self.hosts = Hosts(redis, self.keys)
        self.identity = load_identity(settings.daemon_dir)
        tmux = Tmux(socket_of(settings, self.identity), deadline=tmux_deadline, environ=os.environ)
        self.sessions = Sessions(
            tmux, town=self.identity.town, spare=spared_programs(daemon.spare), clock=self.clock
        )
        self._roster = RosterCache(settings, fallback_roster)
        self._handoff_dir = settings.handoff_dir

    @classmethod
    def open(
        cls, settings: Settings, redis_url: str, *, blocking: float = 0.0,
        fallback_roster: Roster | None = None, tmux_deadline: float = CALL_DEADLINE,
    ) -> "Town":  # fmt: skip
        """The town with a Redis connection of its own; `blocking` as in `plumbing.connections.connect`.

        `fallback_roster` is used while the one on disk cannot be read; `tmux_deadline` is in seconds.
        """
        return cls(settings, redis_url, connect(redis_url, blocking=blocking), fallback_roster, tmux_deadline)

    def now(self) -> datetime:
        """The time of Redis, by which all processes of the town compare. Raises RedisError."""
        return self.clock.now()

    def confirm(self) -> None:
        """Wait until `min_replicas` replicas have what was written. Raises Postponed if they do not."""
        least = self.settings.daemon.min_replicas
        if least and (found := confirm_replicas(self.redis, self.keys.revision, least)) < least:
            raise Postponed(
                f"what was written is not safe yet: {found} of at least {least} replicas of Redis have it "
                "(min_replicas); see that they run and are connected"
            )

    def roster(self) -> Roster:
        """The agents of the town, at most a second old. Raises SettingsError if it was never readable."""
        return self._roster.current()

    def local_agents(self) -> Mapping[str, Agent]:
        """The agents that live on this host, by address."""
        return {address: agent for address, agent in self.roster().agents.items() if agent.host == self.host}

    def report_host(self) -> None:
        """Tell Redis that this host is alive, and which agents it has."""
        try:
            digest = sha256((self.settings.town_root / TOWN_FILE).read_bytes()).hexdigest()
        except OSError:
            digest = ""
        changes = {"roster": published(self.roster()), "town_toml": digest}
        entry = host_entry(self.settings, self.identity)
        self.hosts.report(self.host, entry.model_copy(update=changes))
        self.revision.remember(len(self.hosts.live()))

    def take_places(self) -> None:
        """Record this host's name for the agents that live on this machine, which had another name before."""
        places, addresses = self.places(), list(self.roster().agents)
        if not places.machine:
            return
        for address, known in zip(addresses, self.agents.read_all(addresses), strict=True):
            if known.machine == places.machine and known.host != self.host:
                self.agents.update(address, places.renamed)

    def directory(self) -> Directory:
        """The agents that the living hosts know now."""
        return Directory(self.roster(), self.host, self.hosts)

    def places(self) -> Places:
        """The places of the agents as they are seen from here now."""
        return Places(self.sessions, self.host, self.identity.machine, boot_id())

    def placed(self, addresses: Iterable[str], agents: Mapping[str, Agent] | None = None) -> dict[str, Agent]:
        """Those of these agents that the town has (or `agents`), each with the host that serves it now."""
        agents, places = self.roster().agents if agents is None else agents, self.places()
        known = [address for address in addresses if address in agents]
        return {
            address: replace(agents[address], host=places.serving_host(agents[address], record))
            for address, record in zip(known, self.agents.places(known), strict=True)
        }

    def profile_of(self, agent: Agent) -> Profile:
        """The profile of the agent's program."""
        profiles = self.roster().profiles
        return profiles.get(agent.program, profiles[OTHER])

    def handoff_file(self, agent: Agent) -> Path:
        """The path of the handoff for the agent's successor (docs/reference/contract.md#files)."""
        return self._handoff_dir / f"{agent.session}.md"

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
        if pending and (agent := self.placed([address]).get(address)):
            self.queues.enqueue_request(pending[0], agent)


def host_entry(settings: Settings, identity: Identity) -> HostEntry:
    """What this host says of itself."""
    return HostEntry(
        machine=identity.machine, boot=boot_id(), folder=identity.folder, root=str(settings.town_root)
    )


def ensure_running(town: Town) -> None:
    """Raise Postponed while nothing may be begun: the town is paused, or its daemon is stopping."""
    recover_after_flush(town)
    if town.state.is_stopping():
        raise Postponed("the daemon is stopping; this continues after the next start")
    if town.is_paused():
        raise Postponed("the town is paused; this continues after gastown-mail resume --all")
    town.revision.require_current(town.redis)
    town.confirm()


def recover_after_flush(town: Town) -> None:
    """If Redis was flushed or came back older, bring back what the disk and tmux still know.

    Raises StateUnknown when the files cannot be read: an agent that was stopped must not be started then.
    """
    try:
        state = town.state.state_before_flush()
        if state is None and town.revision.is_current():
            return
        town.revision.set_beyond()
        town.desired.restore()
        _record_sessions(town)
        if town.identity.town:
            town.redis.set(town.keys.identity, town.identity.town, nx=True)
        if state is None:
            town.state.restore_file()
        else:
            town.state.restore(state)
            detail = "Redis was empty; state, desired states and sessions are back"
            record_event(town.redis, town.keys, EventName.RESTORED, detail=detail)
        town.revision.mark_recovered()
    except StateFileError as error:
        raise StateUnknown(str(error)) from error


def _record_sessions(town: Town) -> None:
    """Record the sessions here that are newer than what Redis has of their agents."""
    places = town.places()
    for session in town.sessions.snapshot().values():
        if not (session.incarnation and session.agent and session.town in ("", town.sessions.town)):
            continue
        _record_session(town, session, places.place(session))


def _record_session(town: Town, session: Session, place: Place) -> None:
    record = AgentRecord(
        session=session.name,
        incarnation=session.incarnation,
        started_at=session.started_at,
        generation=session.generation,
    )

    def if_newer(known: AgentRecord) -> list[Place]:
        return [record, place] if record.generation > known.generation else []

    town.agents.update(session.agent, if_newer)
