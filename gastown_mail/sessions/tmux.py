"""Calls to one tmux server, each with a deadline and from a clean environment.

A call returns what tmux says, or raises NoServer or TargetNotFound (certainly not there) or StateUnknown.
The certain ones are kinds of StateUnknown: code that does not tell them apart does nothing.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gastown_mail.contracts.errors import StateUnknown, TmuxMissing
from gastown_mail.plumbing.environment import clean_environment
from gastown_mail.sessions import commands

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

    def server_pid(self) -> int:
        """Return the server's pid; 0 when there is no server."""
        return self.server()[0]

    def server(self) -> tuple[int, int]:
        """Return the server's pid and its start in epoch seconds; zeros when there is no server."""
        try:
            pid, started = map(int, self.run(*commands.show_server()).split())
        except NoServer:
            return 0, 0
        except ValueError:
            raise StateUnknown(f"tmux on socket {self.socket} did not give its server's pid") from None
        return pid, started

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
        _make_default_folder(Path(self.socket).parent)
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


def default_socket(name: str, environ: Mapping[str, str]) -> str:
    """Return the path that tmux gives to a socket of this name (`tmux -L`)."""
    return str(Path(environ.get("TMUX_TMPDIR") or "/tmp").resolve() / f"tmux-{os.getuid()}" / name)


def _make_default_folder(folder: Path) -> None:
    # `tmux -L` makes this folder, `tmux -S` does not; it is gone after each boot.
    if folder.name == f"tmux-{os.getuid()}" and folder.parent.is_dir():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)


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
