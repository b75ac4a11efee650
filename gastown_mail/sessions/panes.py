"""What tmux says of its panes: each agent's session, found by its token wherever its pane is."""

import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.plumbing.clock import Clock
from gastown_mail.sessions.commands import TOKEN

SIGNALLED = 128
_SECONDS = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
GENERATION = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Session:
    """One session as it was when tmux was asked.

    `incarnation` is "" for a session that is not managed, `town` the id of the town that started it. `home`
    is the session that the agent was started in, "" if unknown: a person may have moved its pane to another.
    `pid` is 0 and `dead` true when the agent's pane is gone. `exit_status` is 128 + signal for a program that
    a signal ended. `attached` counts its viewers. `activity` is the last output or input, in whole seconds.
    `foreground` names the program in front, for display. `server` is the pid of the tmux server,
    `server_started` its start in epoch seconds. `shared`: it has more than one pane.
    """

    name: str
    id: str
    pane: str
    pid: int
    incarnation: str
    generation: int
    agent: str
    dead: bool
    exit_status: int | None
    attached: int
    activity: datetime
    started_at: datetime
    foreground: str
    in_mode: bool
    server: int
    server_started: int = 0
    town: str = ""
    home: str = ""
    shared: bool = False

    @property
    def moved(self) -> bool:
        """Whether the agent's pane is in another session than the one that it was started in."""
        return bool(self.incarnation and self.home and self.home != self.id)

    @property
    def key(self) -> str:
        """What tells it from all others of this server: its name, with the pane if that was moved."""
        return f"{self.name}:{self.pane}" if self.moved else self.name


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane: its session as seen from it, whether it is the active one, and which one is the agent's."""

    session: Session
    active: bool
    agent_pane: str

    @classmethod
    def parse(cls, row: str, clock: Clock) -> "Pane":
        """Read one line of PANE_FORMAT; tmux's own times become those of `clock`.

        Raises StateUnknown for any other line.
        """
        texts = row.split("|", len(_COLUMNS) - 1)
        try:
            value = {name: convert(text) for (_, name, convert), text in zip(_COLUMNS, texts, strict=True)}
        except (ValueError, KeyError, OverflowError):
            raise StateUnknown(f"tmux described a pane in an unknown way: {row!r}") from None
        active, agent_pane = value.pop("active"), value.pop("agent_pane")
        status, signalled = value.pop("status"), value.pop("signal")
        created, started = value.pop("created"), value.pop("started")
        session = Session(
            exit_status=status if signalled is None else signalled,
            attached=max(value.pop("clients"), value.pop("viewers")),
            # no session was started in the future, whatever its option says
            started_at=min(started, clock.now_or_local()) if started else clock.translate(created),
            activity=clock.translate(value.pop("activity")),
            **value,
        )
        return cls(session, active, agent_pane)


def _sanitized(variable: str) -> str:
    # Programs choose these texts: without control characters and separators they cannot forge a line.
    return f"#{{s/[\x01-\x1f|\x7f]/_/:{variable}}}"


def _signal_number(text: str) -> int:
    # A number in tmux 3.3; a name where the system has names.
    return int(text) if text.isdecimal() else signal.Signals["SIG" + text.removeprefix("SIG")].value


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(float(text), UTC)


_COLUMNS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("#{session_id}", "id", str),
    ("#{pane_id}", "pane", str),
    ("#{pane_pid}", "pid", int),
    ("#{pane_dead}", "dead", "1".__eq__),
    ("#{pane_dead_status}", "status", lambda text: int(text) if text else None),
    ("#{pane_dead_signal}", "signal", lambda text: SIGNALLED + _signal_number(text) if text else None),
    ("#{session_attached}", "clients", int),
    ("#{window_active_clients}", "viewers", int),
    ("#{pane_in_mode}", "in_mode", lambda text: text not in ("", "0")),
    ("#{window_activity}", "activity", _moment),
    ("#{session_created}", "created", _moment),
    ("#{&&:#{window_active},#{pane_active}}", "active", "1".__eq__),
    ("#{pid}", "server", int),
    ("#{start_time}", "server_started", int),
    ("#{==:#{window_panes}/#{session_windows},1/1}", "shared", "0".__eq__),
    (_sanitized("@gastown_town"), "town", str),
    (_sanitized("@gastown_home"), "home", str),
    (
        _sanitized("@gastown_generation"),
        "generation",
        lambda text: int(text) if GENERATION.fullmatch(text) else 0,
    ),
    (_sanitized("@gastown_started"), "started", lambda text: _SECONDS.fullmatch(text) and _moment(text)),
    (_sanitized("@gastown_pane"), "agent_pane", str),
    (_sanitized("@gastown_incarnation"), "incarnation", lambda text: text if TOKEN.fullmatch(text) else ""),
    (_sanitized("pane_current_command"), "foreground", str),
    (_sanitized("@gastown_agent"), "agent", str),
    ("#{session_name}", "name", str),
)
"""What to ask tmux, the name of the answer, and its converter."""

PANE_FORMAT = "|".join(form for form, _, _ in _COLUMNS)


def parse_panes(text: str, clock: Clock) -> list[Pane]:
    """Read lines of PANE_FORMAT. Raises StateUnknown for any other line."""
    return [Pane.parse(row, clock) for row in text.split("\n") if row]


class Snapshot(dict[str, Session]):
    """All sessions of one server by key, as they were at one moment."""

    def of(self, agent: Agent, town: str = "") -> Session | None:
        """The agent's session, wherever its pane is and whatever its session is called now.

        Without one, a session that has its name and is not the agent's, as one that is not managed. `town`:
        the town's id, "" if it is not known; the sessions of other towns are not the agent's.
        """
        own = [one for one in self._by_agent.get(agent.address, ()) if not town or one.town in ("", town)]
        if own:
            return max(own, key=lambda session: session.generation)
        named = self.get(agent.session)
        return replace(named, incarnation="") if named else None

    @cached_property
    def _by_agent(self) -> dict[str, list[Session]]:
        found: dict[str, list[Session]] = {}
        for session in self.values():
            if session.incarnation:
                found.setdefault(session.agent, []).append(session)
        return found


def group_sessions(panes: Iterable[Pane]) -> Snapshot:
    """Return the sessions of these panes. A session without its agent's pane is dead."""
    by_token: dict[str, list[Pane]] = {}
    by_id: dict[str, list[Pane]] = {}
    for pane in panes:
        by_id.setdefault(pane.session.id, []).append(pane)
        by_token.setdefault(pane.session.incarnation, []).append(pane)
    managed = [_agents_session(group) for token, group in by_token.items() if token]
    homes = {session.home or session.id for session in managed}
    plain = [
        next((pane.session for pane in group if pane.active), group[0].session)
        for ident, group in by_id.items()
        if ident not in homes and not all(pane.session.incarnation for pane in group)
    ]
    viewers = {ident: max(pane.session.attached for pane in group) for ident, group in by_id.items()}
    seen = [replace(one, attached=viewers[one.id]) for one in (*managed, *plain)]
    return Snapshot({session.key: session for session in seen})


def _agents_session(panes: Sequence[Pane]) -> Session:
    """The session of these panes with one token: that of the agent's own pane, at home if it is linked."""
    own = [pane.session for pane in panes if pane.session.pane == pane.agent_pane]
    if own:
        return next((session for session in own if not session.moved), own[0])
    chosen = next((pane for pane in panes if pane.active), panes[0])
    if not chosen.agent_pane:
        return chosen.session
    return replace(chosen.session, pane=chosen.agent_pane, pid=0, dead=True, exit_status=None)
