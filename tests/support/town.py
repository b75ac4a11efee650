"""A town that a test makes: its folder, and what the test does and checks there."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from redis import Redis

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import AgentRecord
from gastown_mail.town.town import Town
from tests.support.agents import MAX, TWO_AGENTS
from tests.support.processes import end_processes_of, end_tmux_server, gone
from tests.support.wait import DEADLINE, eventually


def write_town(folder: Path, toml: str = TWO_AGENTS) -> Settings:
    """Make a town with a unique name in `folder`; return its settings."""
    root = folder / f"t{secrets.token_hex(4)}"
    root.mkdir(parents=True)
    (root / "town.toml").write_text(toml)
    return load_settings(root, environ={})


def end_town(settings: Settings, environ: Mapping[str, str] | None = None) -> None:
    """End the town's tmux server, its daemon, its agents and its Redis; fail if a process survives."""
    end_tmux_server(settings.tmux_socket, environ)
    end_processes_of(settings.town_root)
    # a worker may have started an agent, and with it a server, until it ended
    end_tmux_server(settings.tmux_socket, environ)
    end_processes_of(settings.town_root)


@contextmanager
def a_town(folder: Path, redis_url: str, toml: str = TWO_AGENTS) -> Iterator[Town]:
    """A town opened in this process, without a daemon; its tmux server ends afterwards."""
    town = Town.open(write_town(folder, toml), redis_url, blocking=5.0)
    try:
        yield town
    finally:
        end_town(town.settings)
        town.redis.close()


def element(sender: str = "gastown/witness", action: str = "restart", **more: object) -> bytes:
    """Return an inbox element with the current time."""
    now = format_time(datetime.now(UTC))
    return json.dumps({"from": sender, "action": action, "timestamp": now, **more}).encode()


def identity(session: Session) -> tuple[str, int, str]:
    """What stays the same as long as a session is not replaced."""
    return session.id, session.pid, session.incarnation


class TownUnderTest:
    """A town with its agents: requests go to the inbox; tests read the records and the live sessions.

    `Stage` carries requests out in the test's own process; `Daemon` leaves them to a real daemon.
    """

    def __init__(self, town: Town) -> None:
        self.town = town
        for agent in town.roster().agents.values():
            agent.work_dir.mkdir(parents=True, exist_ok=True)

    @property
    def settings(self) -> Settings:
        return self.town.settings

    @property
    def root(self) -> Path:
        return self.settings.town_root

    @property
    def redis(self) -> Redis:
        return self.town.redis

    def agent(self, address: str = MAX) -> Agent:
        return self.town.roster().agents[address]

    def session(self, address: str = MAX) -> Session | None:
        return self.town.sessions.find(self.agent(address))

    def living(self, address: str = MAX) -> Session:
        """Return the agent's session, which must be alive."""
        session = self.session(address)
        assert session is not None, f"{address} has no session"
        assert not session.dead, f"{address} has ended"
        assert not gone(session.pid)
        return session

    def record(self, address: str = MAX) -> AgentRecord:
        return self.town.agents.read(address)

    def work(self, name: str, address: str = MAX) -> Path:
        """Return the path of a file in the agent's work dir."""
        return self.agent(address).work_dir / name

    def starts(self, address: str = MAX) -> list[str]:
        """Return the tokens of the agent's sessions, in order, as its recorder wrote them."""
        file = self.work("starts", address)
        return file.read_text().split() if file.exists() else []

    def started(self, address: str = MAX) -> Session | None:
        """Return the agent's session once it is alive and recorded and its program has run."""
        session = self.session(address)
        if session is None or session.dead or self.record(address).incarnation != session.incarnation:
            return None
        return session if self.starts(address)[-1:] == [session.incarnation] else None

    def push(self, raw: bytes) -> str:
        """Put an element into the inbox; return its request's id."""
        self.redis.rpush(self.town.keys.inbox, raw)
        return decode_element(raw)[0]

    def ask(self, action: str, sender: str = MAX, **more: object) -> str:
        """Send a request; return its id."""
        return self.push(element(sender, action, **more))

    def status(self, ident: str) -> str:
        return self.town.requests.record(ident).get("status", "")

    def detail(self, ident: str) -> str:
        return self.town.requests.record(ident).get("detail", "")

    def outcome(self, ident: str, deadline: float = DEADLINE) -> str:
        """Wait until the request has a final status; return it."""
        eventually(lambda: self.town.requests.record(ident).get("finished_at"), deadline=deadline)
        return self.status(ident)

    def done(self, ident: str, deadline: float = DEADLINE) -> None:
        """Wait until the request is done; any other final status fails the test."""
        assert self.outcome(ident, deadline) == "done", self.town.requests.record(ident)
