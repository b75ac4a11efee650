"""Sessions that run already, started by a person: where they are, and which program each shows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions import commands, process_table
from gastown_mail.sessions.foreground import bare_shell
from gastown_mail.sessions.tmux import Tmux, default_socket

_FORM = "#{pane_pid}|#{@gastown_incarnation}|#{session_name}|#{pane_current_path}"
_IN_FRONT = "#{&&:#{window_active},#{pane_active}}"


@dataclass(frozen=True)
class ExistingSession:
    """A session, and the program in front of it: its words, none for a bare shell.

    `managed`: a town has it already.
    """

    name: str
    work_dir: str
    program: tuple[str, ...]
    managed: bool

    @property
    def can_be_agent(self) -> bool:
        """Whether a town could adopt it."""
        return bool(self.program) and not self.managed and bool(commands.NAME.fullmatch(self.name))


def running_sockets(environ: Mapping[str, str]) -> list[str]:
    """The sockets in this user's tmux folder, by name, and that of the server this runs inside of."""
    folder = Path(default_socket("default", environ)).parent
    own = environ.get("TMUX", "").partition(",")[0]
    paths = [
        *(folder.iterdir() if os.access(folder, os.R_OK | os.X_OK) else ()),
        *([Path(own)] if own else ()),
    ]
    return sorted({str(path.resolve()) for path in paths if path.is_socket()})


def existing_sessions(socket: str, environ: Mapping[str, str] = os.environ) -> list[ExistingSession]:
    """The sessions of the tmux server at this socket, none if no server runs there."""
    try:
        text = Tmux(socket, environ=environ).run(*commands.list_all(_FORM, _IN_FRONT))
    except StateUnknown:
        return []
    rows = (row.split("|", 3) for row in text.splitlines())
    return [
        ExistingSession(name, work_dir, _program(int(pid)), bool(token))
        for pid, token, name, work_dir in (row for row in rows if len(row) == 4)
    ]


def _program(pane: int) -> tuple[str, ...]:
    words = process_table.arguments(process_table.foreground_group(pane))
    return () if not words or bare_shell(words) else tuple(words)
