"""A town that a real daemon serves, in its own processes; none of them is left after the test."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import State, load_state
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.connections import connect, to_str_dict
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.sessions.session import Session
from gastown_mail.town.lease import LeaseOwner
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.support.agents import DEAF_RECORDER, MAX, RECORDER, TOWN
from tests.support.processes import Process, clean_environ
from tests.support.town import TownUnderTest, end_town, write_town
from tests.support.wait import DEADLINE, eventually

REPOSITORY = Path(__file__).parents[2]


class Daemon(TownUnderTest):
    """A town, its daemon, and the commands that are run in its folder. `quiet`: `up` prints no events."""

    def __init__(self, settings: Settings, *, quiet: bool = False, **environ: str) -> None:
        super().__init__(Town.open(settings, redis_url(settings), blocking=5.0))
        self.environ, self.quiet = clean_environ(**environ), quiet
        self.prefix: list[str] = []
        """What stands before every command."""
        self.processes: list[Process] = []
        self.latest: Process | None = None

    @property
    def process(self) -> Process:
        """The latest `up`."""
        assert self.latest is not None, "the daemon was not started"
        return self.latest

    def python(self, *words: str, environ: Mapping[str, str] | None = None) -> Process:
        """Run Python with these words in the town's folder."""
        output = self.root / f"output-{len(self.processes)}"
        command = [*self.prefix, sys.executable, *words]
        process = Process(command, {**self.environ, **(environ or {})}, self.root, output)
        self.processes.append(process)
        return process

    def script(self, name: str, environ: Mapping[str, str] | None = None) -> Process:
        """Run `worker.py` or `scheduler.py` of the repository."""
        return self.python(str(REPOSITORY / name), environ=environ)

    def spawn(self) -> Process:
        """Run `gastown-mail up`."""
        self.latest = self.python("-m", "gastown_mail", "up", *(["--quiet"] if self.quiet else []))
        return self.latest

    def up(self) -> Process:
        """Run `gastown-mail up` and wait until it serves the town."""
        process = self.spawn()
        eventually(self.serves, deadline=DEADLINE)
        return process

    def serves(self) -> bool:
        assert not self.process.has_ended(), f"the daemon has ended: {self.process.words()}"
        state = self.state()
        return state.running and state.pid == self.process.pid

    def stop(self) -> int:
        """Send SIGTERM to the latest `up`; return its exit status."""
        return self.process.stop()

    def command(
        self, *words: str, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `gastown-mail` to its end."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "gastown_mail", *words],
            env={**self.environ, **(environ or {})}, cwd=self.root,
            capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
        )  # fmt: skip

    def document(self, *words: str) -> Any:
        """Return what a command prints with `--json`: one document, nothing else."""
        return json.loads(self.command(*words, "--json").stdout)

    def run(self, address: str = MAX) -> Session:
        """Have the daemon start the agent, like `gastown-mail run`; return its session."""
        self.town.desired.set(address, Desired.RUNNING)
        job = self.town.queues.enqueue_start(self.agent(address), "a test wants it", by="operator")
        eventually(lambda: job.get_status(refresh=True) in ("finished", "failed"), deadline=DEADLINE)
        if self.agent(address).command in (RECORDER, DEAF_RECORDER):
            eventually(lambda: self.started(address), deadline=DEADLINE)
        return self.living(address)

    def state(self) -> State:
        return load_state(self.root)

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log's entries of this event."""
        file = self.settings.log_file
        texts = [
            f.read_text(errors="replace") for f in (file.with_name(f"{file.name}.1"), file) if f.exists()
        ]
        lines = (line for text in texts for line in text.splitlines())
        return [json.loads(line) for line in lines if f'"event": "{event}"' in line]

    def logged(self, event: str) -> int:
        """Return how often the log has this event."""
        return len(self.log(event))

    def children(self) -> dict[str, int]:
        """Return the pids of the daemons' living children by name, as the log tells them."""
        named = {entry["child"]: entry["pid"] for entry in self.log("child_started")}
        return {name: pid for name, pid in named.items() if psutil.pid_exists(pid)}

    def child(self, name: str) -> psutil.Process:
        return psutil.Process(self.children()[name])

    def lease_owner(self, address: str = MAX) -> psutil.Process:
        """Wait until a process holds the agent's lease; return it."""
        key = self.town.keys.lease(address)
        token = eventually(lambda: self.redis.get(key), deadline=DEADLINE, step=0.005)
        owner = LeaseOwner.parse(bytes(token).decode())  # type: ignore[arg-type]
        assert owner is not None
        return psutil.Process(owner.pid)

    def wait_until_idle(self, worker: psutil.Process) -> None:
        """Wait until the worker has finished its jobs."""
        redis: Any = self.redis

        def is_idle() -> bool:
            workers = [to_str_dict(redis.hgetall(key)) for key in redis.smembers("rq:workers")]
            return any(w.get("pid") == str(worker.pid) and w["state"] == "idle" for w in workers)

        eventually(is_idle, deadline=DEADLINE)

    def redis_pid(self) -> int:
        return int(self.redis.info("server")["process_id"])

    def tmux_pid(self) -> int:
        return self.town.sessions.tmux.server_pid()

    def holder(self) -> int | None:
        """Return the pid of the daemon that holds the town's lock."""
        holder = TownLock.holder(self.settings.lock_file)
        return holder.pid if holder else None

    def serves_redis(self) -> bool:
        """True if the town's Redis answers."""
        with suppress(Exception), connect(self.town.redis_url) as redis:
            return bool(redis.ping())
        return False

    def close(self) -> None:
        """Kill everything: daemons, agents, tmux and Redis."""
        for process in self.processes:
            process.popen.kill()
            process.popen.wait(DEADLINE)
        end_town(self.settings, self.environ)
        self.redis.close()


@contextmanager
def a_daemon(toml: str = TOWN, *, quiet: bool = False, **environ: str) -> Iterator[Daemon]:
    """A town whose daemon is not started, in a folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gmt-")).resolve()
    try:
        daemon = Daemon(write_town(folder, toml), quiet=quiet, **environ)
        try:
            yield daemon
        finally:
            daemon.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def a_running_daemon(toml: str, **environ: str) -> Iterator[Daemon]:
    """A town whose daemon serves it."""
    with a_daemon(toml, quiet=True, **environ) as daemon:
        daemon.up()
        yield daemon
