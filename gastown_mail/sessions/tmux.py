"""Calls to one tmux server, each with a deadline and from a clean environment, and what its panes show.

A call returns what tmux says, or raises NoServer or TargetNotFound (certainly not there) or StateUnknown.
The certain ones are kinds of StateUnknown: code that does not tell them apart does nothing.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gastown_mail.contracts.errors import StateUnknown, TmuxMissing
from gastown_mail.plumbing.environment import clean_environment
from gastown_mail.sessions import commands
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
            raise StateUnknown(f"tmux described a pane in an unknown way: {row!r}") from None
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


CALL_DEADLINE = 5.0
_REAP_DEADLINE = 1.0

_NO_TARGET = re.compile(
    r"can't find (session|window|pane): |no such (session|window|pane): |no current target"
)
_NOT_CONNECTED = re.compile(
    r"no server running on (?P<refused>.+)"
    r"|error connecting to (?P<path>.+) \((No such file or directory|Connection refused)\)"
)
_LISTENING = "00010000"


class NoServer(StateUnknown):
    """No tmux server listens on this socket, so certainly none of its sessions exists."""


class TargetNotFound(StateUnknown):
    """The server runs and says that the session, window or pane does not exist."""


@dataclass(frozen=True, slots=True)
class TmuxResult:
    """What one tmux client printed, and its exit status. Only a part of a script may have failed."""

    status: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Tmux:
    """One tmux server, named by a socket name (`tmux -L`) or by an absolute path (`tmux -S`).

    `deadline` is in seconds, for each call. tmux gets HOME, PATH and the like from `environ`, and nothing
    else. `calls` counts the tmux processes started.
    """

    def __init__(self, socket: str, *, deadline: float = CALL_DEADLINE, environ: Mapping[str, str]) -> None:
        self.socket = socket
        self.deadline = deadline
        self.environ = clean_environment(environ)
        self.calls = 0
        self._path: str | None = None

    def run(self, *argv: str, stdin: str | None = None, cwd: str | os.PathLike[str] = "/") -> str:
        """Run tmux commands and return what they print.

        Raises TmuxMissing, NoServer, TargetNotFound, or StateUnknown with tmux's own words.
        """
        answer = self.run_raw(argv, stdin=stdin, cwd=cwd)
        if answer.status:
            raise self.to_error(answer)
        return answer.output

    def script(self, lines: Iterable[str], *, cwd: str | os.PathLike[str] = "/") -> TmuxResult:
        """Run many command lines in one tmux process; one that fails does not stop the others.

        The result has what they printed and, in `errors`, what failed. Raises NoServer, TmuxMissing, and
        StateUnknown at the deadline.
        """
        answer = self.run_raw(commands.source_stdin(), stdin="\n".join(lines) + "\n", cwd=cwd)
        if answer.status and isinstance(error := self.to_error(answer), NoServer):
            raise error
        return answer

    def run_raw(
        self, argv: Iterable[str], *, stdin: str | None = None, cwd: str | os.PathLike[str] = "/"
    ) -> TmuxResult:
        """Run one tmux client in `cwd` and return its result, whatever it says.

        Raises TmuxMissing, FileNotFoundError or NotADirectoryError for `cwd`, StateUnknown at the deadline or
        if the folder of the socket is missing.
        """
        client = subprocess.Popen(
            self._command(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=self.environ | {"PWD": os.fspath(cwd)},
            start_new_session=True,
        )
        self.calls += 1
        try:
            output, errors = client.communicate(
                None if stdin is None else stdin.encode(errors="surrogateescape"), timeout=self.deadline
            )
        except subprocess.TimeoutExpired:
            raise StateUnknown(
                f"tmux did not answer within {self.deadline:g} s on socket {self.socket}: "
                "its server is suspended or overloaded; try again later, and if its process is suspended, "
                "kill -CONT resumes it"
            ) from None
        finally:
            _discard(client)
        return TmuxResult(
            client.returncode, output.decode(errors="replace"), errors.decode(errors="replace").strip()
        )

    def panes(self) -> list[Pane]:
        """Return all panes of the server, from one call; none when there is no server."""
        try:
            return parse_panes(self.run(*commands.list_all(PANE_FORMAT)))
        except (NoServer, TargetNotFound):
            return []

    def server_pid(self) -> int:
        """Return the server's pid; 0 when there is no server."""
        try:
            return int(self.run(*commands.show_server_pid()))
        except NoServer:
            return 0
        except ValueError:
            raise StateUnknown(f"tmux on socket {self.socket} did not give its server's pid") from None

    def global_environment(self) -> list[str]:
        """Return the names in the environment of the server, which is started if there is none.

        A value of several lines may add names that do not exist.
        """
        try:
            text = self.run(*commands.show_global_environment())
        except NoServer:
            text = self.run(*commands.start_server(), ";", *commands.show_global_environment())
        return variable_names(text.splitlines())

    def attach_argv(self, session_id: str) -> list[str]:
        """Return the command that shows a session in the terminal it runs in."""
        return self._command(commands.attach(session_id))

    def _command(self, argv: Iterable[str]) -> list[str]:
        folder = self.environ.get("TMUX_TMPDIR")
        if folder and not self.socket.startswith("/") and not Path(folder).is_dir():
            raise StateUnknown(
                f"TMUX_TMPDIR names {folder}, which is missing: tmux would use /tmp instead, and miss a "
                "running server; create the folder, or start the daemon without TMUX_TMPDIR"
            )
        if not self._path or not os.access(self._path, os.X_OK):
            self._path = shutil.which("tmux", path=self.environ.get("PATH"))
        if self._path is None:
            raise TmuxMissing("no tmux on PATH: install tmux 3.2 or newer")
        by = "-S" if self.socket.startswith("/") else "-L"
        return [self._path, by, self.socket, "-u", "-f", "/dev/null", *argv]

    def to_error(self, answer: TmuxResult) -> StateUnknown:
        """Return the error that a failed client means."""
        text = answer.errors
        if _NO_TARGET.match(text):
            return TargetNotFound(text)
        unconnected = _NOT_CONNECTED.match(text)
        if not unconnected:
            remedy = (
                "; end that server when its agents may end, or use its tmux" if "protocol" in text else ""
            )
            words = text or "nothing, but it failed"
            return StateUnknown(f"tmux on socket {self.socket} says: {words}{remedy}")
        path = unconnected["refused"] or unconnected["path"]
        folder = Path(path).parent
        if self.socket.startswith("/") and not os.access(folder, os.R_OK | os.X_OK):
            return StateUnknown(
                f"{text}: the folder {folder} is missing or unreadable, so a server may run there; "
                "mount it or make it readable"
            )
        # If the file exists, a server that listens now came up after the client found none.
        if _listens(path) and not Path(path).exists():
            return StateUnknown(
                f"{text}: a tmux server still runs there, but its socket file is gone; "
                "send SIGUSR1 to that server to make it create the file again"
            )
        return NoServer(text)


def variable_names(environment: Iterable[str]) -> list[str]:
    """Return the names in an environment that tmux printed."""
    return [line.partition("=")[0] for line in environment if line.find("=") > 0]


def _listens(path: str) -> bool:
    # Linux only: a socket whose file was deleted (by a cleaner of /tmp) still shows up here.
    try:
        table = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return False
    rows = (line.split(maxsplit=7) for line in table.splitlines())
    return any(len(row) == 8 and row[3] == _LISTENING and row[7] == path for row in rows)


def _discard(client: "subprocess.Popen[bytes]") -> None:
    # Not communicate() again: a process that inherited the pipes could hold them open forever.
    if client.poll() is None:
        client.kill()
        client.wait(_REAP_DEADLINE)
    for pipe in (client.stdin, client.stdout, client.stderr):
        if pipe is not None:
            pipe.close()
