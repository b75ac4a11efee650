"""Where agents live, and when a place is known to be dead: what cannot be seen from here is unknown.

A place is a machine, a tmux server and a session. Only its own machine ends what lives there. A start needs a
place that is empty, or known to be dead: that very server is gone or answers without the agent's session.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.sessions import process_table
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.town.records import AgentRecord, Place


@dataclass(frozen=True)
class Unseen:
    """Why nothing may be ended or started: the agent is believed to be where this process cannot look."""

    state: AgentState
    where: str


@dataclass(frozen=True)
class Places:
    """The places of a town's agents, as seen from one host at one moment."""

    sessions: Sessions
    host: str
    machine: str
    boot: str

    def is_here(self, record: AgentRecord) -> bool:
        """Whether the agent on record lives, or last lived, on this machine."""
        if not record.machine:  # from before places, or released
            return bool(record.incarnation) and record.host == self.host
        return record.machine == self.machine

    def renamed(self, record: AgentRecord) -> list[Place]:
        """What to write into a record of this machine, if that had another name when it was written."""
        if record.machine != self.machine or record.host == self.host:
            return []
        assigned = self.host if record.assigned == record.host else record.assigned
        return [Place(host=self.host), AgentRecord(assigned=assigned)]

    def is_empty(self, record: AgentRecord) -> bool:
        """Whether the agent lives nowhere."""
        return not record.machine and not (record.incarnation and record.host)

    def target_host(self, agent: Agent, record: AgentRecord) -> str:
        """The host that the agent belongs to: as town.toml says, an operator, the place, or this one."""
        settled = "" if self.is_empty(record) else record.host
        return agent.declared_host or record.assigned or settled or self.host

    def serving_host(self, agent: Agent, record: AgentRecord) -> str:
        """The host whose workers act on the agent: where it lives, or else where it would be started."""
        return self.target_host(agent, record) if self.is_empty(record) else record.host

    def believed_host(self, agent: Agent, record: AgentRecord) -> str:
        """The host where the agent lives as far as this one knows, or else the one that it belongs to."""
        is_away = not self.is_empty(record) and not self.is_here(record)
        return record.host if is_away else self.target_host(agent, record)

    def unseen(self, record: AgentRecord) -> Unseen | None:
        """Where an agent without a session here may live; None if its place is empty or known to be dead."""
        if self.is_empty(record):
            return None
        if not self.is_here(record):
            other = "another machine or folder that was " if record.host == self.host else ""
            return Unseen(AgentState.ELSEWHERE, f"on {other}host {record.host}")
        if record.boot and self.boot and record.boot != self.boot:
            return None
        if where := self._other_server(record):
            return Unseen(AgentState.UNKNOWN, where)
        return None

    def is_left_behind(self, session: Session, record: AgentRecord) -> bool:
        """Whether a session here is an older one of an agent that was started elsewhere since."""
        return (
            not self.is_empty(record)
            and not self.is_here(record)
            and session.incarnation != record.incarnation
            and session.generation < record.generation
        )

    def moves_to(self, agent: Agent, record: AgentRecord, session: Session | None) -> str:
        """The host for which this one is to release the agent; "" while there is none."""
        target = self.target_host(agent, record)
        lives = session is not None and bool(session.incarnation)
        if session is not None and lives and self.is_left_behind(session, record):
            return record.host
        is_ours = self.is_here(record) or (lives and self.is_empty(record))
        return target if target != self.host and is_ours else ""

    def place(self, session: Session | None = None) -> Place:
        """The place of a session here; without one, that of an agent about to be started."""
        server = _server(session.server, session.server_started) if session else ""
        return Place(
            machine=self.machine, boot=self.boot, host=self.host, tmux_server=server,
            tmux_socket=self.sessions.tmux.socket,
        )  # fmt: skip

    def _other_server(self, record: AgentRecord) -> str:
        """Why the tmux server on record may still have the session; "" if it certainly has not."""
        if record.tmux_server in ("", self._current):
            return ""
        socket = record.tmux_socket
        if socket not in ("", self.sessions.tmux.socket):
            other = Sessions(Tmux(socket, environ=self.sessions.tmux.environ), town=self.sessions.town)
            try:
                if other.with_token(record.incarnation) is not None:
                    return f"on the tmux server at {socket}; set tmux_socket to it and restart the daemon"
            except StateUnknown as error:
                return str(error)
        pid = int(record.tmux_server.partition(":")[0])
        if pid != int(self._current.partition(":")[0] or 0) and _is_tmux(pid):
            return (
                f"on the tmux server with pid {pid}, which no longer has its socket {socket}; "
                f"kill -USR1 {pid} makes it open the socket again"
            )
        return ""

    @cached_property
    def _current(self) -> str:
        return _server(*self.sessions.tmux.server())


def _server(pid: int, started: int) -> str:
    return f"{pid}:{started}" if pid else ""


def _is_tmux(pid: int) -> bool:
    process = process_table.read_process(pid)
    words = process_table.arguments(pid) if process else []
    return bool(words) and PurePath(words[0].rstrip(":")).name.startswith("tmux")
