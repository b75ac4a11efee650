"""The daemon as its users run it, in processes of its own, of which nothing is left after the test."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import State, load_state
from gastown_mail.plumbing.connections import connect
from gastown_mail.plumbing.embedded import server_url, stop_server
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.sessions.session import Session
from gastown_mail.town.town import Town
from tests.integration.stage import RECORDED
from tests.towns import clean_environ, element, kill_sessions, write_town
from tests.waiting import eventually

HERE = Path(__file__).parents[2]
DEADLINE = 60.0
"""Seconds that anything may take on a busy machine."""

TOWN = RECORDED.replace("[daemon]\n", "[daemon]\nsweep_interval = 1\nheartbeat_interval = 2\n")
"""Two crew members and a witness that write down what they are given; quick rounds."""


class Process:
    """One process of ours, with what it says."""

    def __init__(self, words: list[str], environ: Mapping[str, str], cwd: Path, said: Path) -> None:
        self.said = said
        with said.open("wb") as output:
            self.popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=cwd
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def words(self) -> str:
        return self.said.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(DEADLINE)

    def close(self) -> None:
        """End it, and whatever it started and did not end."""
        children = self.children()
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(DEADLINE)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.wait(DEADLINE / 3)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


class Place:
    """A town with an embedded Redis, the processes that a test runs for it, and what can be seen of them."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.root = settings.town_root
        self.environ = dict(environ)
        self.url = settings.daemon.redis_url or server_url(settings.redis_dir)
        self.processes: list[Process] = []
        self.town = Town.open(settings, self.url)
        for agent in self.town.roster().agents.values():
            agent.work_dir.mkdir(parents=True, exist_ok=True)

    @property
    def redis(self) -> Redis:
        return self.town.redis

    def python(self, *words: str, environ: Mapping[str, str] | None = None) -> Process:
        """Run Python with these words, in the town's folder."""
        process = Process(
            [sys.executable, *words], {**self.environ, **(environ or {})}, self.root,
            self.root / f"said-{len(self.processes)}",
        )  # fmt: skip
        self.processes.append(process)
        return process

    def up(self) -> Process:
        """`gastown-mail up`, as soon as it serves."""
        process = self.python("-m", "gastown_mail", "up")
        eventually(lambda: self._serves(process), deadline=DEADLINE)
        return process

    def _serves(self, process: Process) -> bool:
        assert process.popen.poll() is None, process.words()
        state = self.state()
        return state.running and state.pid == process.pid

    def script(self, name: str) -> Process:
        """`worker.py` or `scheduler.py` of the repository."""
        return self.python(str(self.script_path(name)))

    def script_path(self, name: str) -> Path:
        return HERE / name

    def command(
        self, *words: str, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `gastown-mail` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "gastown_mail", *words], env={**self.environ, **(environ or {})},
            cwd=self.root, capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
        )  # fmt: skip

    def document(self, *words: str) -> Any:
        """What a reading command prints with `--json`: one document, nothing else."""
        done = self.command(*words, "--json")
        return json.loads(done.stdout)

    def state(self) -> State:
        return load_state(self.root)

    def ask(self, sender: str, action: str, **more: str) -> str:
        """Push a request as any language would, in the shape of `conformance/`; its id."""
        wish = element(sender, action, id=f"test-{os.urandom(6).hex()}", **more)
        self.redis.rpush(f"gastown:{{{self.settings.town_name}}}:inbox", wish)
        return str(json.loads(wish)["id"])

    def status(self, ident: str) -> str:
        return self.town.requests.record(ident).get("status", "")

    def done(self, ident: str, deadline: float = DEADLINE) -> None:
        """Wait until the request is done; any other end fails."""
        final = {"done", "refused", "failed", "expired", "superseded"}
        eventually(lambda: self.status(ident) in final, deadline=deadline)
        record = self.town.requests.record(ident)
        assert record["status"] == "done", record

    def session(self, address: str) -> Session | None:
        return self.town.sessions.find(self.town.roster().agents[address].session)

    def living(self, address: str) -> Session:
        session = self.session(address)
        assert session is not None
        assert not session.dead
        return session

    def run(self, address: str) -> Session:
        """Have the agent started."""
        done = self.command("run", address)
        assert done.returncode == 0, done.stderr
        return self.living(address)

    def children(self) -> dict[str, int]:
        """The living children of the daemons of this town by name, from their log."""
        lines = self.settings.log_file.read_text().splitlines()
        started = [json.loads(line) for line in lines if '"child_started"' in line]
        return {line["child"]: line["pid"] for line in started if psutil.pid_exists(line["pid"])}

    def holder(self) -> int | None:
        found = TownLock.holder(self.settings.lock_file)
        return found.pid if found else None

    def serves_redis(self) -> bool:
        """Does the embedded server answer?"""
        with contextlib.suppress(Exception), connect(self.url) as redis:
            return bool(redis.ping())
        return False

    def close(self) -> None:
        for process in reversed(self.processes):
            process.close()
        if pid := self.holder():
            _end(pid)
        kill_sessions(self.settings)
        self.town.redis.close()
        stop_server(self.settings.redis_dir)


def _end(pid: int) -> None:
    """End a daemon that was started in the background."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(DEADLINE)
        except psutil.TimeoutExpired:
            process.kill()


@contextmanager
def a_place(toml: str = TOWN, **environ: str) -> Iterator[Place]:
    """A town in a folder with a short path, as a socket's path must be; all of it is gone afterwards."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="gmt-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        place = Place(write_town(folder, toml), clean_environ(**environ))
        cleanup.callback(place.close)
        yield place
