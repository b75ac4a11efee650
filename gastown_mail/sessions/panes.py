"""What one `list-panes` says about a town: its line format, its parser, and the sessions seen in it. Pure."""

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions.commands import TOKEN

_SIGNALLED = 128
_SECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def _sanitized(variable: str) -> str:
    # Programs choose these texts: without control characters and separators they cannot forge a line.
    return f"#{{s/[\x01-\x1f|\x7f]/_/:{variable}}}"


_FIELDS = (
    "#{session_id}",
    "#{pane_id}",
    "#{pane_pid}",
    "#{pane_dead}",
    "#{pane_dead_status}",
    "#{pane_dead_signal}",
    "#{session_attached}",
    "#{window_active_clients}",
    "#{pane_in_mode}",
    "#{window_activity}",
    "#{session_created}",
    "#{&&:#{window_active},#{pane_active}}",
    "#{pid}",
    _sanitized("@gastown_generation"),
    _sanitized("@gastown_started"),
    _sanitized("@gastown_pane"),
    _sanitized("@gastown_incarnation"),
    _sanitized("pane_current_command"),
    _sanitized("@gastown_agent"),
    "#{session_name}",
)
PANE_FORMAT = "|".join(_FIELDS)


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane and the session it is in. Times are seconds since the epoch, with whole seconds' precision."""

    session_id: str
    id: str
    pid: int
    dead: bool
    exit_status: int | None
    attached: int
    in_mode: bool
    activity: float
    created: float
    active: bool
    server: int
    generation: int
    started: float
    agent_pane: str
    incarnation: str
    command: str
    agent: str
    session: str


@dataclass(frozen=True, slots=True)
class Session:
    """One session as it was when tmux was asked. Times are seconds since the epoch.

    `incarnation` is "" for a session that is not ours. `pid` is 0 and `dead` true when the agent's pane is no
    more. `exit_status` is 128 + signal for a program that a signal ended. `attached` counts who sees it.
    `activity` is the last output or input, in whole seconds. `foreground` names the program in front, for
    people. `server` is the pid of the tmux server.
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
    activity: float
    started_at: float
    foreground: str
    in_mode: bool
    server: int


def parse_panes(text: str) -> list[Pane]:
    """Read the lines of PANE_FORMAT. Raises Unknown for a line that is none."""
    return [_parse_line(row) for row in text.split("\n") if row]


def _parse_line(row: str) -> Pane:
    fields = row.split("|", len(_FIELDS) - 1)
    try:
        return _pane(*fields)
    except (TypeError, ValueError, KeyError):
        raise StateUnknown(f"tmux described a pane in a way that is not understood: {row!r}") from None


def _pane(
    session_id: str, ident: str, pid: str, dead: str, status: str, ended_by: str, attached: str, viewers: str,
    in_mode: str, activity: str, created: str, active: str, server: str, generation: str, started: str,
    agent_pane: str, incarnation: str, command: str, agent: str, session: str,
) -> Pane:  # fmt: skip
    return Pane(
        session_id=session_id,
        id=ident,
        pid=int(pid),
        dead=dead == "1",
        exit_status=_exit_status(status, ended_by),
        attached=max(int(attached), int(viewers)),
        in_mode=in_mode not in ("", "0"),
        activity=float(activity),
        created=float(created),
        active=active == "1",
        server=int(server),
        generation=int(generation) if generation.isdecimal() else 0,
        started=float(started if _SECONDS.fullmatch(started) else created),
        agent_pane=agent_pane,
        incarnation=incarnation if TOKEN.fullmatch(incarnation) else "",
        command=command,
        agent=agent,
        session=session,
    )


def _exit_status(status: str, ended_by: str) -> int | None:
    if ended_by:
        return _SIGNALLED + _signal_number(ended_by)
    return int(status) if status else None


def _signal_number(text: str) -> int:
    # A number in tmux 3.3; a name where the system has names.
    return int(text) if text.isdecimal() else signal.Signals["SIG" + text.removeprefix("SIG")].value


def group_sessions(panes: Iterable[Pane]) -> dict[str, Session]:
    """Return the sessions that these panes belong to, by name."""
    ordered = sorted(panes, key=lambda pane: pane.session_id)
    groups = (list(group) for _, group in groupby(ordered, key=lambda pane: pane.session_id))
    return {group[0].session: _session(group) for group in groups}


def _session(panes: list[Pane]) -> Session:
    chosen = next((pane for pane in panes if pane.active), panes[0])
    pane = next((pane for pane in panes if pane.id == chosen.agent_pane), None)
    lost = pane is None and chosen.agent_pane != ""
    seen = pane or chosen
    return Session(
        name=seen.session,
        id=seen.session_id,
        pane=seen.agent_pane or seen.id,
        pid=0 if lost else seen.pid,
        incarnation=seen.incarnation,
        generation=seen.generation,
        agent=seen.agent,
        dead=lost or seen.dead,
        exit_status=None if lost else seen.exit_status,
        attached=max(pane.attached for pane in panes),
        activity=seen.activity,
        started_at=seen.started,
        foreground=seen.command,
        in_mode=seen.in_mode,
        server=seen.server,
    )
