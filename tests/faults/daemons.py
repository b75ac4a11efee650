"""Real daemons for the fault suite: `python -m gastown_mail up`, each in a town of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.contracts.state import load_state
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.connections import to_str_dict
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.session import Session
from gastown_mail.town.lease import LeaseOwner
from gastown_mail.town.records import AgentRecord
from gastown_mail.town.town import Town
from tests.support.processes import clean_environ
from tests.support.town import element, end_town
from tests.support.wait import eventually

PATIENCE = 45.0
"""Seconds for anything that the daemon does by itself, on a noisy machine."""

MAX, MAXINE, DEACON = "gastown/crew/max", "gastown/crew/maxine", "deacon/"

AGENT = (
    'sh -c \'echo "$GASTOWN_INCARNATION" >> starts; cat "${GASTOWN_HANDOFF:-/dev/null}" > handoff;'
    " while read line; do :; done'"
)
"""An agent that notes each start, with its token, and keeps the handoff it found; it ends on SIGTERM."""

SLOW_AGENT = AGENT.replace("sh -c '", "sh -c 'trap : TERM; ").replace(
    "read line; do :;", "read line || sleep 0.2; do :;"
)
"""The same, but only SIGKILL ends it."""

DAEMON = """
[daemon]
heartbeat_interval = 2
sweep_interval = 1
fresh_after = 3600
restart_backoff = 0
crash_loop_count = 1000
"""

CREW = """
[roles.crew]
command = '''{agent}'''
work_dir = "work/{{name}}"
stop_grace = {grace}
[agents."gastown/crew/max"]
[agents."gastown/crew/maxine"]
"""


def a_crew(agent: str = AGENT, grace: float = 2, daemon: str = DAEMON) -> str:
    """The town.toml of max and maxine."""
    return daemon + CREW.format(agent=agent, grace=grace)


class Daemon:
    """One town and the daemon that serves it, seen from outside."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.root = root
        self.environ = surroundings(**environ)
        self.settings: Settings = load_settings(root, environ=environ)
        self.town = Town.open(self.settings, redis_url(self.settings), blocking=5.0)
        self.up: subprocess.Popen[bytes] | None = None
        self.words = root / "up.out"
        for agent in self.town.roster().agents.values():
            agent.work_dir.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Run `up`, and wait until it serves."""
        self.spawn()
        eventually(self.serves, deadline=PATIENCE)

    def spawn(self) -> "subprocess.Popen[bytes]":
        with self.words.open("ab") as words:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "gastown_mail", "--town", str(self.root), "up", "--quiet"],
                stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                env=self.environ, start_new_session=True, cwd=self.root,
            )  # fmt: skip
        return self.up

    def serves(self) -> bool:
        assert self.up is not None
        assert self.up.poll() is None, f"the daemon has ended: {self.words.read_text()}"
        state = load_state(self.root)
        return state.running and state.pid == self.up.pid

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.up is not None
        self.up.terminate()
        return self.up.wait(PATIENCE)

    def child(self, name: str) -> psutil.Process:
        """The living child of `up` that the log last named so."""
        import json

        for line in reversed(self.settings.log_file.read_text().splitlines()):
            entry = json.loads(line)
            if entry["event"] == "child_started" and entry["child"] == name:
                return psutil.Process(entry["pid"])
        raise AssertionError(f"no child {name} was started")

    def logged(self, event: str) -> int:
        """How often the log says this."""
        return self.settings.log_file.read_text().count(f'"event": "{event}"')

    def run(self, address: str = MAX) -> Session:
        """Have the daemon start the agent, as an operator would; the session."""
        self.town.queues.enqueue_start(self.town.roster().agents[address], "a test wants it", by="operator")
        session = eventually(lambda: self.started(address), deadline=PATIENCE)
        assert session is not None
        return session

    def session(self, address: str = MAX) -> Session | None:
        return self.town.sessions.find(self.town.roster().agents[address].session)

    def living(self, address: str = MAX) -> Session | None:
        """The agent's session if it lives and is written down."""
        session = self.session(address)
        if session is None or session.dead or self.record(address).incarnation != session.incarnation:
            return None
        return session if self.starts(address)[-1:] == [session.incarnation] else None

    def record(self, address: str = MAX) -> AgentRecord:
        return self.town.agents.read(address)

    def work(self, name: str, address: str = MAX) -> Path:
        return self.town.roster().agents[address].work_dir / name

    def starts(self, address: str = MAX) -> list[str]:
        """The tokens of the agent's sessions, in the order of their starts, as they wrote them themselves."""
        file = self.work("starts", address)
        return file.read_text().split() if file.exists() else []

    def push(self, wish: bytes) -> str:
        self.town.redis.rpush(self.town.keys.inbox, wish)
        return decode_element(wish)[0]

    def ask(self, action: str, sender: str = MAX, **more: object) -> str:
        """Put a request into the inbox; its id."""
        return self.push(element(sender, action, **more))

    def status(self, ident: str) -> str:
        return self.town.requests.record(ident).get("status", "")

    def outcome(self, ident: str) -> str:
        """The request's final status, when it has one."""
        eventually(lambda: self.town.requests.record(ident).get("finished_at"), deadline=PATIENCE)
        return self.status(ident)

    def lease_owner(self, address: str = MAX) -> psutil.Process:
        """The process that has the agent's turn, as soon as one has it."""
        key = self.town.keys.lease(address)
        token = eventually(lambda: self.town.redis.get(key), deadline=PATIENCE, step=0.005)
        holder = LeaseOwner.parse(bytes(token).decode())  # type: ignore[arg-type]
        assert holder is not None
        return psutil.Process(holder.pid)

    def wait_until_idle(self, worker: psutil.Process) -> None:
        """Wait until the worker that goes on has ended all that it was doing."""
        eventually(lambda: self._resting(worker.pid), deadline=PATIENCE)

    def _resting(self, pid: int) -> bool:
        redis: Any = self.town.redis
        known = [to_str_dict(redis.hgetall(key)) for key in redis.smembers("rq:workers")]
        return any(one.get("pid") == str(pid) and one["state"] == "idle" for one in known)

    def redis_pid(self) -> int:
        return int(self.town.redis.info("server")["process_id"])

    def tmux_server(self) -> int:
        return self.town.sessions.tmux.server_pid()

    def close(self) -> None:
        """End all of it: the daemon, its Redis, its tmux server, its agents."""
        if self.up is not None:
            self.up.kill()
            self.up.wait(PATIENCE)
        end_town(self.settings)
        kill_server(self.settings.tmux_socket, self.environ)
        left = processes.terminate_all(self._mine, grace=0.0)
        self.town.redis.close()
        assert not left, f"left: {processes.describe(left)}"

    def _mine(self) -> set[process_table.Process]:
        """Whatever still belongs to this town: its folder has a name that nobody else has."""
        folder = str(self.root)
        rows = (process_table.read_process(pid) for pid in process_table.pids() if _belongs(pid, folder))
        return {row for row in rows if row is not None}


def surroundings(**more: str) -> dict[str, str]:
    """The machine's environment without any town's, but with the folder of this process's tmux sockets."""
    kept = {name: value for name, value in os.environ.items() if name == "TMUX_TMPDIR"}
    return {**clean_environ(), **kept, **more}


def kill_server(socket: str, environ: Mapping[str, str]) -> None:
    """End the tmux server of this name, wherever the environment says that its socket is."""
    subprocess.run(
        ["tmux", "-L", socket, "kill-server"], capture_output=True, env=environ, timeout=10, check=False
    )
    folder = Path(environ.get("TMUX_TMPDIR", "/tmp")) / f"tmux-{os.getuid()}"
    (folder / socket).unlink(missing_ok=True)


def _belongs(pid: int, folder: str) -> bool:
    return folder in " ".join(process_table.arguments(pid)) or folder.encode() in process_table.environment(
        pid
    )


@contextmanager
def a_daemon(toml: str, **environ: str) -> Iterator[Daemon]:
    """A daemon that serves a town of its own, in a folder with a path short enough for sockets."""
    root = Path(tempfile.mkdtemp(prefix="gf-", dir="/tmp")).resolve()
    (root / "town.toml").write_text(toml)
    daemon = Daemon(root, **environ)
    try:
        daemon.up()
        yield daemon
    finally:
        daemon.close()
        shutil.rmtree(root)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Have these processes stand still inside the block, by SIGSTOP."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
