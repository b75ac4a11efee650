"""Finds the files of the product whose functions one cycle enters, in a small town that really runs.

The town has one agent, which asks for a cycle as soon as it has run for a while; so does its successor. The
second cycle counts: by then the worker has loaded what it keeps between requests. There is no scheduler, so
no heartbeat runs meanwhile.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click

from gastown_mail.cli.demo_town import demo_folder
from gastown_mail.plumbing.environment import without_town

AGENT = "town/crew/ann"
CYCLES = 2
DEADLINE = 60.0
POLL_INTERVAL = 0.2

HOOK = """\
import os, sys, threading, time

place, log = os.environ["MEASURED"], os.open(os.environ["ENTERED"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)


def imports(frame):
    while frame := frame.f_back:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
    return False


def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(place) and code.co_name != "<module>":
        if not imports(frame):
            os.write(log, f"{time.time()} {os.getpid()} {code.co_filename[len(place):]}\\n".encode())


sys.setprofile(note)
threading.setprofile(note)
"""
"""Python runs it as `sitecustomize` when it starts. What runs only while a module is imported is left out."""

TOWN = """\
town_name = "town"
[daemon]
workers = 1
tmux_socket = {socket}
[roles.crew]
command = '''sleep 4; "$PYTHON" -m gastown_mail send cycle --handoff "go on"; exec cat'''
work_dir = "."
stop_grace = 1
env = {{ {env} }}
[agents."{agent}"]
"""


class Entry(NamedTuple):
    """When a function was entered, in which process, and in which file of the package."""

    at: float
    pid: int
    file: str


class Town:
    """A town in `folder`, run with the package of the checkout `root`."""

    def __init__(self, folder: Path, root: Path) -> None:
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        self.folder, self.root = folder, root
        # A file that appears later in the town's folder makes the worker read the roster again.
        for log in ("sender", "worker"):
            (folder / log).touch()
        self.environ = {**without_town(os.environ), "GASTOWN_TOWN": str(folder), "PYTHONPATH": str(root)}
        env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.measured("sender").items())
        socket = json.dumps(str(folder / "tmux"))
        (folder / "town.toml").write_text(TOWN.format(socket=socket, env=env, agent=AGENT))

    def measured(self, log: str) -> dict[str, str]:
        """The variables that make a Python program record what it enters."""
        return {
            "PYTHON": sys.executable, "PYTHONPATH": f"{self.folder / 'hook'}:{self.root}",
            "MEASURED": f"{self.root / 'gastown_mail'}/", "ENTERED": str(self.folder / log),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `gastown-mail` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "gastown_mail", *words],
            env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip

    def cycles(self) -> int:
        """How many requests are done."""
        return len(self.command("events", "--event", "done", "--json").stdout.splitlines())

    def entries(self, log: str) -> list[Entry]:
        """What was entered, in chronological order."""
        lines = [line.split(maxsplit=2) for line in (self.folder / log).read_text().splitlines()]
        return sorted(Entry(float(at), int(pid), file) for at, pid, file in lines)

    @contextmanager
    def worker(self) -> Iterator[int]:
        """Run `worker.py` inside the block; yield its pid."""
        process = subprocess.Popen(
            [sys.executable, str(self.root / "worker.py")], env={**self.environ, **self.measured("worker")},
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(DEADLINE)


def files_of_one_cycle(root: Path) -> tuple[set[str], set[str]]:
    """The files of a checkout's package that one cycle enters: in the worker, and in the sending process."""
    with demo_folder() as folder:
        town = Town(folder, root)
        with town.worker() as parent:
            _wait(lambda: town.command("run", AGENT).returncode == 0, "the agent did not start")
            _wait(lambda: town.cycles() >= CYCLES, "the agent was not cycled")
            sent, until = _last_cycle(town.entries("sender"))
            # The parent watches its children whether there is a request or not.
            served = [e for e in town.entries("worker") if sent[0].at <= e.at < until and e.pid != parent]
    return {entry.file for entry in served}, {entry.file for entry in sent}


def _last_cycle(entries: list[Entry]) -> tuple[list[Entry], float]:
    """What the sender of the counted cycle entered, and when the next sender began, if it has."""
    pids = list(dict.fromkeys(entry.pid for entry in entries))
    sent = [entry for entry in entries if entry.pid == pids[CYCLES - 1]]
    return sent, min((entry.at for entry in entries if entry.pid in pids[CYCLES:]), default=time.time())


def _wait(condition: Callable[[], bool], failure: str) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            raise click.ClickException(f"{failure} within {DEADLINE:.0f} s")
        time.sleep(POLL_INTERVAL)
