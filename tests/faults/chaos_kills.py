"""Kills and freezes the daemon's processes at random, and starts it again as systemd would."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.process_table import Process
from tests.support.daemon import Daemon

SHARES = {
    "clerk": 20, "lifecycle": 50, "heartbeat": 10, "scheduler": 10, "tmux client": 25,
    "up": 5, "redis": 5,
}  # fmt: skip
FREEZE_SHARE = 0.35
LONG_FREEZE = 12.0
"""Longer than a lease: another process takes over meanwhile."""

HUNT = 1.5
"""Seconds to wait for a short-lived victim."""


class Supervisor:
    """Runs `up`, and runs it again whenever it has ended."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.starts = daemon, 0

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            if self.daemon.latest is None or self.daemon.process.has_ended():
                self.daemon.spawn()
                self.starts += 1


@dataclass
class Killer:
    """Kills or freezes processes of `up`, and the town's own Redis; everything is drawn from one seed."""

    daemon: Daemon
    chance: random.Random
    tally: Counter[str] = field(default_factory=Counter)
    frozen: list[tuple[float, Process]] = field(default_factory=list)

    def run(self, stop: threading.Event, slowest: float) -> None:
        while not stop.wait(self.chance.uniform(0.1, slowest)):
            self.thaw(time.monotonic())
            kind = self.chance.choices(list(SHARES), list(SHARES.values()))[0]
            seconds = self._freeze_time(kind)
            victim = self.find(kind)
            if victim is not None:
                self._strike(kind, victim, seconds)
        self.thaw(float("inf"))

    def thaw(self, now: float) -> None:
        """Resume the frozen processes whose time is over."""
        due = [process for until, process in self.frozen if until <= now]
        self.frozen = [(until, process) for until, process in self.frozen if until > now]
        processes.send_signal(due, signal.SIGCONT)

    def find(self, kind: str) -> Process | None:
        """Return a victim of that kind; None if there is none now."""
        up = self.daemon.latest
        if up is None or up.has_ended():
            return None
        if kind == "up":
            return _process(up.pid)
        if kind == "redis":
            return self._redis()
        if kind == "tmux client":
            return self._hunt(up.pid)
        names = [f"lifecycle-{self.chance.choice((1, 2))}"] if kind == "lifecycle" else [kind]
        return next((self._child(up.pid, name) for name in names), None)

    def _freeze_time(self, kind: str) -> float:
        if self.chance.random() > FREEZE_SHARE:
            return 0.0
        long = kind in ("lifecycle", "clerk") and self.chance.random() < 0.3
        return LONG_FREEZE if long else self.chance.uniform(0.05, 2.5)

    def _strike(self, kind: str, victim: Process, freeze: float) -> None:
        self.tally[f"{kind} {'frozen' if freeze else 'killed'}"] += 1
        processes.send_signal([victim], signal.SIGSTOP if freeze else signal.SIGKILL)
        if freeze:
            self.frozen.append((time.monotonic() + freeze, victim))

    def _child(self, up: int, name: str) -> Process | None:
        pid = self.daemon.children().get(name)
        return _process(pid, parent=up) if pid else None

    def _redis(self) -> Process | None:
        folder = str(self.daemon.settings.redis_dir)
        for pid in process_table.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if str(Path(f"/proc/{pid}/cwd").readlink()) == folder:
                    return _process(pid)
        return None

    def _hunt(self, up: int) -> Process | None:
        until = time.monotonic() + HUNT
        while time.monotonic() < until:
            for worker in _children(up):
                if found := _clients(worker):
                    return _process(self.chance.choice(found))
            time.sleep(0.001)
        return None


def _children(pid: int) -> Iterator[int]:
    for task in _listed(Path(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            yield from map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())


def _clients(pid: int) -> list[int]:
    return [child for child in _children(pid) if "tmux" in " ".join(process_table.arguments(child)[:1])]


def _listed(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208
    return []


def _process(pid: int, parent: int | None = None) -> Process | None:
    row = process_table.read_process(pid)
    return row if row is not None and parent in (None, row.parent) else None
