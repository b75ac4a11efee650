"""The demo's town: a temporary folder, three harmless agents, the real daemon; nothing of it stays."""

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

from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.service import redis_url
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.session import Session
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town

ANN, BOB, CAL = "demo/crew/ann", "demo/crew/bob", "demo/crew/cal"
HEARTBEAT_INTERVAL = 1.0
STEP_DEADLINE = 15.0
STOP_DEADLINE = 8.0
"""Seconds in which the daemon must have stopped; then it is ended like everything else."""

SWEEP_GRACE = 3.0
LOOK_PAUSE = 0.02
ROOM_FOR_PLACE = 57
"""Bytes of the path that the demo's folder lies in, so that the paths of its sockets fit everywhere."""

SERVERS = ("tmux", "valkey-server", "redis-server")
"""Programs that keep nothing of our environment, but name their socket in their arguments."""

AGENT = """\
echo "I am $GASTOWN_AGENT"
if [ -n "$GASTOWN_HANDOFF" ]; then echo "handoff: $(cat "$GASTOWN_HANDOFF")"; else echo "no handoff"; fi
while read -r line; do
    case $line in
        "hand over "*) "$DEMO_PYTHON" -m gastown_mail send cycle --handoff "${line#hand over }" ;;
        *) echo "heard: $line" ;;
    esac
done
"""
"""What each agent runs instead of an AI: it shows its handoff, answers lines, and hands over when told."""

TOWN_TOML = """\
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

T = TypeVar("T")


class DemoFailed(GastownError):
    """What the demo was to show did not happen; the text says what was expected."""


class Interrupted(Exception):
    """The demo was told to end by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class DemoTown:
    """The town while it is shown. `caught` holds the signals that came; `until` is of the monotonic clock."""

    town: Town
    sessions: Mapping[str, str]
    daemon: "subprocess.Popen[bytes]"
    complaints: IO[bytes]
    caught: Sequence[int]
    until: float

    @property
    def root(self) -> Path:
        """The town's folder."""
        return self.town.settings.town_root

    def wait(self, expected: str, condition: Callable[[], T | None]) -> T:
        """The condition's first true value.

        Raises NotShown at the deadline or when the daemon has ended, Interrupted at a signal.
        """
        began = time.monotonic()
        until = min(began + STEP_DEADLINE, self.until)
        while not (value := condition()):
            self._go_on(expected)
            if time.monotonic() > until:
                raise DemoFailed(f"expected {expected}, and it did not come in {until - began:.0f} s")
            time.sleep(LOOK_PAUSE)
        return value

    def look(self, address: str) -> Session | None:
        """The agent's living session, None when there is none."""
        session = self.town.sessions.find(self.sessions[address])
        return session if session and not session.dead else None

    def wait_for_session(self, address: str) -> Session:
        """The agent's session; raises NotShown when it has none."""
        return self.wait(f"a session of {address}", lambda: self.look(address))

    def wait_for_line(self, address: str, text: str, *, after: Session | None = None) -> Session:
        """Wait until `text` is a line on the screen of the agent's session, one that is not `after`."""
        try:
            return self.wait(f"{address} to show {text!r}", lambda: self._shown(address, text, after))
        except DemoFailed as missed:
            session = self.look(address)
            screen = self.town.sessions.capture_screen(session) if session else "(it has no session)"
            raise DemoFailed(f"{missed}. Its screen:\n{screen}") from None

    def expect_gone(self, session: Session) -> None:
        """Wait until no process of this session is left."""
        expected = f"no process of the old session, pid {session.pid}"
        self.wait(expected, lambda: not processes.with_incarnation(session.incarnation))

    def poke(self, address: str, text: str) -> None:
        """Have a worker type `text` into the agent's session, as `gastown-mail poke` does."""
        self.town.queues.enqueue_poke(self.town.roster().agents[address], text)

    def serves(self) -> bool:
        """Has the daemon taken up its work?"""
        state = load_state(self.root)
        return state.running and state.pid == self.daemon.pid

    def _go_on(self, expected: str) -> None:
        if self.caught:
            raise Interrupted(self.caught[0])
        if self.daemon.poll() is not None:
            self.complaints.seek(0)
            said = self.complaints.read().decode(errors="replace").strip() or "without a word"
            raise DemoFailed(f"expected {expected}; the daemon ended with {self.daemon.returncode}: {said}")

    def _shown(self, address: str, text: str, after: Session | None) -> Session | None:
        session = self.look(address)
        if session is None or (after and after.incarnation == session.incarnation):
            return None
        return session if text in self.town.sessions.capture_screen(session).splitlines() else None


@contextmanager
def demo_town(folder: Path, caught: Sequence[int], until: float) -> Iterator[DemoTown]:
    """The town in `folder`, its daemon just started; afterwards that has been asked to end."""
    environ = clean_environ(os.environ)
    settings = write_town(folder, environ)
    town = Town.open(settings, redis_url(settings))
    names = {agent.address: agent.session for agent in load_roster(settings).agents.values()}
    with tempfile.TemporaryFile(dir=folder) as complaints:
        daemon = start_daemon(settings, environ, complaints)
        try:
            yield DemoTown(town, names, daemon, complaints, caught, until)
        finally:
            town.redis.close()
            stop(daemon)


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without another town's or tmux's words: the demo is a town of its own."""
    return {k: v for k, v in environ.items() if not k.startswith(("GASTOWN_", "GT_", "TMUX"))}


def write_town(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Write the demo's town.toml and its agents' program into `folder`."""
    own = {"DEMO_PYTHON": sys.executable, "PYTHONPATH": environ.get("PYTHONPATH", "")}
    text = TOWN_TOML.format(
        interval=HEARTBEAT_INTERVAL, socket=_toml(str(folder / "tmux")), ann=ANN, bob=BOB, cal=CAL,
        env=", ".join(f"{name} = {_toml(value)}" for name, value in own.items() if value),
    )  # fmt: skip
    (folder / "town.toml").write_text(text, encoding="utf-8")
    (folder / "agent.sh").write_text(AGENT, encoding="ascii")
    return load_settings(folder, environ={})


def _toml(text: str) -> str:
    # JSON's escapes are TOML's too, but for characters that JSON writes as surrogates.
    return json.dumps(text, ensure_ascii=False)


def start_daemon(
    settings: Settings, environ: Mapping[str, str], complaints: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Start `gastown-mail up` for the town, out of reach of the terminal's Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", "up", "--quiet"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints,
        env={**environ, "GASTOWN_TOWN": str(settings.town_root)},
        start_new_session=True, cwd=settings.town_root,
    )  # fmt: skip


def stop(daemon: "subprocess.Popen[bytes]") -> int | None:
    """Ask the daemon to stop; its exit code, None when it did not end in time."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    try:
        return daemon.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A new folder in a place with a short path; afterwards it is gone, with all that ran in it."""
    folder = Path(tempfile.mkdtemp(prefix="gastown-demo-", dir=_short_place()))
    try:
        yield folder
    finally:
        sweep(folder)


def sweep(folder: Path) -> None:
    """End every process of the town in `folder`, then remove it. Raises NotShown for what stays."""
    left = processes.terminate_all(lambda: processes_of(folder), grace=SWEEP_GRACE)
    shutil.rmtree(folder, ignore_errors=True)
    if left:
        raise DemoFailed(
            f"expected no process to be left, found {processes.describe(left)}; end them by hand"
        )
    if folder.exists():
        raise DemoFailed(f"expected {folder} to be gone, and it cannot be removed; remove it by hand")


def processes_of(folder: Path) -> set[process_table.Process]:
    """The daemon and the sessions (by GASTOWN_TOWN), the tmux and Valkey servers (by their sockets)."""
    mine = os.geteuid()
    found = (
        process_table.read_process(pid)
        for pid in process_table.pids()
        if process_table.owned_by(pid, mine) and _belongs(pid, str(folder))
    )
    return {row.process for row in found if row is not None}


def _belongs(pid: int, folder: str) -> bool:
    if os.fsencode(f"\0GASTOWN_TOWN={folder}\0") in process_table.environment(pid):
        return True
    command = " ".join(process_table.arguments(pid))
    return folder in command and any(server in command for server in SERVERS)


def _short_place() -> Path:
    for place in (Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()):
        if len(os.fsencode(place)) <= ROOM_FOR_PLACE and os.access(place, os.W_OK):
            return place
    raise SettingsError("the demo needs a folder with a short path: set TMPDIR to one that it may write to")
