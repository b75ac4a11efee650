"""A tmux server for one test, agents in it, and a check that nothing is left."""

import contextlib
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.profile import Profile
from gastown_mail.programs.library import built_in
from gastown_mail.sessions.process_table import Process
from gastown_mail.sessions.processes import describe, terminate_all, wait_ended, with_incarnation
from gastown_mail.sessions.session import Poke, Session, Sessions
from gastown_mail.sessions.tmux import NoServer, Tmux
from tests.support.wait import eventually

STAY = "exec sleep 600"
WHEN_TOLD = "while ! [ -e go ]; do sleep 0.01; done"
"""Ends when a test makes the file `go` in the work dir."""

HANG_UP_DEADLINE = 5.0


class TmuxWorld:
    """One socket that only this test uses; `close()` ends its server and fails if an agent survives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"gmt-{os.getpid()}-{secrets.token_hex(4)}"
        self.environ = dict(os.environ)
        self.tmux = Tmux(self.socket, environ=self.environ)
        self.sessions = Sessions(self.tmux)
        self.tokens: list[str] = []
        self._generation = 0

    def token(self) -> str:
        """Return a new incarnation; `close()` looks for its processes."""
        self.tokens.append(secrets.token_hex(8))
        return self.tokens[-1]

    def agent(self, session: str = "gt-rig-crew-max", *, work_dir: Path | None = None) -> Agent:
        return Agent(
            address=f"rig/crew/{session}",
            role="crew",
            rig="rig",
            name=session,
            session=session,
            work_dir=work_dir or self.folder,
            command=STAY,
            poke=None,
            keep_running=False,
            stop_grace=1.0,
            env={},
            host="here",
        )

    def start(
        self,
        command: str = STAY,
        session: str = "gt-rig-crew-max",
        *,
        work_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
        generation: int | None = None,
        token: str | None = None,
    ) -> Session:
        """Start a session with a new token in its environment."""
        token = token or self.token()
        self._generation += 1
        return self.sessions.start(
            self.agent(session, work_dir=work_dir),
            incarnation=token,
            generation=generation or self._generation,
            environ={"GASTOWN_INCARNATION": token, **(environ or {})},
            command=command,
        )

    def find(self, name: str) -> Session | None:
        """Return the session of the agent that has this session name."""
        return self.sessions.find(self.agent(name))

    def living(self) -> dict[str, str]:
        """Return the incarnation of each session by name."""
        return {name: session.incarnation for name, session in self.sessions.snapshot().items()}

    def wait_for(self, path: Path) -> Path:
        """Wait until a program has written `path`."""
        eventually(path.exists)
        return path

    def close(self) -> None:
        with contextlib.suppress(NoServer):
            self.tmux.run("kill-server")
        folder = Path(os.environ.get("TMUX_TMPDIR") or "/tmp") / f"tmux-{os.getuid()}"
        (folder / self.socket).unlink(missing_ok=True)
        left: set[Process] = set()
        for token in self.tokens:
            wait_ended(with_incarnation(token), timeout=HANG_UP_DEADLINE)
            left |= with_incarnation(token)
        text = describe(left)
        assert terminate_all(lambda: left, grace=0.0) == set()
        assert not text, f"left over: {text}"


RECORDER = """
import os, sys, termios, tty
name, mode = sys.argv[1:]
if mode != "lines":
    tty.setraw(0)
if mode == "bracketed":
    os.write(1, b"\\x1b[?2004h")
with open(name, "wb", buffering=0) as record:
    while chunk := os.read(0, 65536):
        record.write(chunk)
        if mode != "lines":
            shown = chunk.replace(b"\\x1b[200~", b"").replace(b"\\x1b[201~", b"")
            shown = shown.replace(b"\\r", b"\\n").replace(b"\\n", b"\\r\\n")
            os.write(1, shown.replace(b"\\x15", b"\\r\\x1b[K"))
"""
Recorder = Callable[..., tuple[Session, Path]]
"""Starts a program that records its input and echoes it: `(mode, name)` to its session and the record."""

LINES = built_in()["other"]
ANY_TEXT = LINES.model_copy(
    update={"input": LINES.input.model_copy(update={"several_lines": True, "max_bytes": 102_400})}
)
"""What the recorder takes: texts of any length and of several lines."""


def poke_of(session: Session, text: str, profile: Profile = ANY_TEXT) -> Poke:
    """A poke for a program that takes any text."""
    return Poke(session, text, profile)


def poke_all(sessions: Sessions, *pokes: Poke) -> dict[str, str]:
    """Poke sessions; return the outcomes as text, by session name."""
    return {name: str(outcome) for name, outcome in sessions.poke(pokes).items()}


def poke(world: TmuxWorld, session: Session, text: str) -> str:
    """Poke one session; return the outcome as text."""
    return poke_all(world.sessions, poke_of(session, text))[session.name]


def python(program: str, *arguments: object) -> str:
    """Return a shell command that becomes this Python program."""
    return shlex.join(["exec", sys.executable, "-S", "-c", program, *map(str, arguments)])
