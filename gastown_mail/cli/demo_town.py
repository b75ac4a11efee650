"""The demo's town: a temporary folder, three harmless agents and the real daemon; all of it is removed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.settings import load_settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.environment import without_town
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.session import Session
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town

ANN, BOB, CAL = "demo/crew/ann", "demo/crew/bob", "demo/crew/cal"
_HEARTBEAT_INTERVAL = 1.0
_STEP_DEADLINE = 15.0
_STOP_DEADLINE = 8.0
"""Seconds that the daemon has to stop; then it is ended like every other process of the demo."""

_KILL_GRACE = 3.0
_POLL = 0.02
_MAX_PARENT_PATH = 57
"""Most bytes in the path of the folder's parent: socket paths in it must fit on every system."""

_SERVERS = ("tmux", "valkey-server", "redis-server")
"""Programs that drop the demo's environment but have their socket in their arguments."""

_AGENT = """\
echo "I am $GASTOWN_AGENT"
if [ -n "$GASTOWN_HANDOFF" ]; then echo "handoff: $(cat "$GASTOWN_HANDOFF")"; else echo "no handoff"; fi
while read -r line; do
    case $line in
        "hand over "*) "$DEMO_PYTHON" -m gastown_mail send cycle --handoff "${line#hand over }" ;;
        *) echo "heard: $line" ;;
    esac
done
"""
"""What each agent runs instead of an AI: it shows its handoff, answers lines, and hands over when told to."""

_TOWN_TOML = """\
town_name = "demo"
[daemon]
heartbeat_interval = {interval}
tmux_socket = {socket}
[roles.crew]
command = "sh agent.sh"
work_dir = "."
keep_running = true
stop_grace = 1
env = {{ {env} }}
[agents]
"{ann}" = {{}}
"{bob}" = {{}}
"{cal}" = {{}}
"""

_T = TypeVar("_T")


class DemoFailed(GastownError):
    """A step of the demo did not happen; the text says what was expected."""


class Interrupted(Exception):
    """The signal `number` asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class DemoTown:
    """The running town. `caught` collects signals, `until` is a monotonic time."""

    town: Town
    agents: Mapping[str, Agent]
    daemon: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    caught: Sequence[int]
    until: float

    @property
    def root(self) -> Path:
        """The town's folder."""
        return self.town.settings.town_root

    def wait(self, expected: str, condition: Callable[[], _T | None]) -> _T:
        """The condition's first true value.

        Raises DemoFailed at the deadline or when the daemon has ended, Interrupted at a signal.
        """
        began = time.monotonic()
        until = min(began + _STEP_DEADLINE, self.until)
        while not (value := condition()):
            if self.caught:
                raise Interrupted(self.caught[0])
            if (code := self.daemon.poll()) is not None:
                self.errors.seek(0)
                words = self.errors.read().decode(errors="replace").strip() or "it printed no error"
                raise DemoFailed(f"expected {expected}; the daemon ended with {code}: {words}")
            if time.monotonic() > until:
                raise DemoFailed(f"expected {expected}; it did not happen within {until - began:.0f} s")
            time.sleep(_POLL)
        return value

    def find(self, address: str) -> Session | None:
        """The agent's live session, None when there is none."""
        session = self.town.sessions.find(self.agents[address])
        return session if session and not session.dead else None

    def wait_for_session(self, address: str) -> Session:
        """The agent's live session; raises DemoFailed when there is none."""
        return self.wait(f"a session of {address}", lambda: self.find(address))

    def wait_for_line(self, address: str, text: str, *, after: Session | None = None) -> Session:
        """Wait for the line `text` on the screen of the agent's session, a later one than `after`."""

        def session_with_line() -> Session | None:
            session = self.find(address)
            if session is None or (after and after.incarnation == session.incarnation):
                return None
            return session if text in self.town.sessions.capture_screen(session).splitlines() else None

        try:
            return self.wait(f"{address} to show {text!r}", session_with_line)
        except DemoFailed as error:
            session = self.find(address)
            screen = self.town.sessions.capture_screen(session) if session else "(it has no session)"
            raise DemoFailed(f"{error}. Its screen:\n{screen}") from None

    def expect_gone(self, session: Session) -> None:
        """Wait until every process of this session has ended."""
        expected = f"every process of the old session, pid {session.pid}, to end"
        self.wait(expected, lambda: not processes.with_incarnation(session.incarnation))

    def poke(self, address: str, text: str) -> None:
        """Have a worker type `text` into the agent's session, like `gastown-mail poke`."""
        self.town.queues.enqueue_poke(
            self.agents[address], text, self.town.now().timestamp() + _STEP_DEADLINE
        )

    def serves(self) -> bool:
        """True if the daemon is at work."""
        state = load_state(self.root)
        return state.running and state.pid == self.daemon.pid


@contextmanager
def demo_town(folder: Path, caught: Sequence[int], until: float) -> Iterator[DemoTown]:
    """Write a town into `folder` and start its daemon; ask it to stop at the end."""
    environ = without_town(os.environ)
    variables = {"DEMO_PYTHON": sys.executable, "PYTHONPATH": environ.get("PYTHONPATH", "")}
    toml = _TOWN_TOML.format(
        interval=_HEARTBEAT_INTERVAL, socket=_toml_string(str(folder / "tmux")), ann=ANN, bob=BOB, cal=CAL,
        env=", ".join(f"{name} = {_toml_string(value)}" for name, value in variables.items() if value),
    )  # fmt: skip
    (folder / "town.toml").write_text(toml, encoding="utf-8")
    (folder / "agent.sh").write_text(_AGENT, encoding="ascii")
    settings = load_settings(folder, environ={})
    town = Town.open(settings, redis_url(settings))
    with tempfile.TemporaryFile(dir=folder) as errors:
        # a session of its own: the terminal's Ctrl-C reaches only the demo
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "gastown_mail", "up", "--quiet"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            env={**environ, "GASTOWN_TOWN": str(folder)}, start_new_session=True, cwd=folder,
        )  # fmt: skip
        try:
            yield DemoTown(town, load_roster(settings).agents, daemon, errors, caught, until)
        finally:
            town.redis.close()
            stop_daemon(daemon)


def _toml_string(text: str) -> str:
    # JSON escapes like TOML, except for characters that JSON writes as surrogates
    return json.dumps(text, ensure_ascii=False)


def stop_daemon(daemon: "subprocess.Popen[bytes]") -> int | None:
    """Ask the daemon to stop; return its exit code, None if it did not end in time."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    try:
        return daemon.wait(_STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A new folder with a short path. At the end it is removed, and all processes of a town in it are ended.

    Raises DemoFailed if something remains.
    """
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()):
        if len(os.fsencode(parent)) <= _MAX_PARENT_PATH and os.access(parent, os.W_OK):
            break
    else:
        raise SettingsError("the demo needs a writable folder with a short path: set TMPDIR to one")
    folder = Path(tempfile.mkdtemp(prefix="gastown-demo-", dir=parent))
    try:
        yield folder
    finally:
        remaining = processes.terminate_all(lambda: _processes_of(folder), grace=_KILL_GRACE)
        shutil.rmtree(folder, ignore_errors=True)
        if remaining:
            raise DemoFailed(
                f"these processes could not be ended: {processes.describe(remaining)}; kill them"
            )
        if folder.exists():
            raise DemoFailed(f"{folder} could not be removed; remove it yourself")


def _processes_of(folder: Path) -> set[process_table.Process]:
    """Daemon and sessions have GASTOWN_TOWN in their environment; servers have their socket's path."""

    def belongs(pid: int) -> bool:
        if os.fsencode(f"\0GASTOWN_TOWN={folder}\0") in process_table.environment(pid):
            return True
        command = " ".join(process_table.arguments(pid))
        return str(folder) in command and any(server in command for server in _SERVERS)

    uid = os.geteuid()
    everything = process_table.read_all()
    return {p for p in everything if process_table.owned_by(p.pid, uid) and belongs(p.pid)}
