"""The output of one `list-panes`: its format, its parser, and the sessions in it. Pure."""

import re
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions.commands import TOKEN

_SIGNALLED = 128
_SECONDS = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Session:
    """One session as it was when tmux was asked.

    `incarnation` is "" for a session that is not managed. `pid` is 0 and `dead` true when the agent's pane is
    gone. `exit_status` is 128 + signal for a program that a signal ended. `attached` counts its viewers.
    `activity` is the last output or input, in whole seconds. `foreground` names the program in front, for
    display. `server` is the pid of the tmux server.
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


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane: its session as seen from it, whether it is the active one, and which one is the agent's."""

    session: Session
    active: bool
    agent_pane: str

    @classmethod
    def parse(cls, row: str) -> "Pane":
        """Read one line of PANE_FORMAT. Raises StateUnknown for any other line."""
        texts = row.split("|", len(_COLUMNS) - 1)
        try:
            value = {name: convert(text) for (_, name, convert), text in zip(_COLUMNS, texts, strict=True)}
        except (ValueError, KeyError, OverflowError):
            raise StateUnknown(f"tmux described a pane in a way that is not understood: {row!r}") from None
        active, agent_pane = value.pop("active"), value.pop("agent_pane")
        status, signalled = value.pop("status"), value.pop("signal")
        created, started = value.pop("created"), value.pop("started")
        session = Session(
            exit_status=status if signalled is None else signalled,
            attached=max(value.pop("clients"), value.pop("viewers")),
            started_at=started or created,
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
    ("#{pane_dead_signal}", "signal", lambda text: _SIGNALLED + _signal_number(text) if text else None),
    ("#{session_attached}", "clients", int),
    ("#{window_active_clients}", "viewers", int),
    ("#{pane_in_mode}", "in_mode", lambda text: text not in ("", "0")),
    ("#{window_activity}", "activity", _moment),
    ("#{session_created}", "created", _moment),
    ("#{&&:#{window_active},#{pane_active}}", "active", "1".__eq__),
    ("#{pid}", "server", int),
    (_sanitized("@gastown_generation"), "generation", lambda text: int(text) if text.isdecimal() else 0),
    (_sanitized("@gastown_started"), "started", lambda text: _SECONDS.fullmatch(text) and _moment(text)),
    (_sanitized("@gastown_pane"), "agent_pane", str),
    (_sanitized("@gastown_incarnation"), "incarnation", lambda text: text if TOKEN.fullmatch(text) else ""),
    (_sanitized("pane_current_command"), "foreground", str),
    (_sanitized("@gastown_agent"), "agent", str),
    ("#{session_name}", "name", str),
)
"""What to ask tmux, the name of the answer, and its converter."""

PANE_FORMAT = "|".join(form for form, _, _ in _COLUMNS)


def parse_panes(text: str) -> list[Pane]:
    """Read lines of PANE_FORMAT. Raises StateUnknown for any other line."""
    return [Pane.parse(row) for row in text.split("\n") if row]


def group_sessions(panes: Iterable[Pane]) -> dict[str, Session]:
    """Return the sessions of these panes by name. A session without its agent's pane is dead."""
    groups: dict[str, list[Pane]] = {}
    for pane in panes:
        groups.setdefault(pane.session.id, []).append(pane)
    sessions = {}
    for group in groups.values():
        chosen = next((pane for pane in group if pane.active), group[0])
        own = next((pane for pane in group if pane.session.pane == chosen.agent_pane), None)
        session = (own or chosen).session
        if own is None and chosen.agent_pane:
            session = replace(session, pane=chosen.agent_pane, pid=0, dead=True, exit_status=None)
        sessions[session.name] = replace(session, attached=max(pane.session.attached for pane in group))
    return sessions
