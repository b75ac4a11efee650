"""Parts of the daemon for tests: a Valkey server of the test's own, and one process of a town at a time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from gastown_mail.contracts.settings import Settings
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.plumbing.embedded import ensure_server, server_pid
from gastown_mail.town.town import Town
from tests.towns import clean_environ
from tests.waiting import eventually

_PART = """
import os, sys, threading
from pathlib import Path
from gastown_mail.contracts.settings import load_settings
from gastown_mail.daemon import service
settings = load_settings(Path(sys.argv[1]), environ=os.environ)
"""
CLERK = _PART + "service.run_clerk(settings, sys.argv[2], threading.Event())"
SCHEDULER = _PART + "service.run_scheduler(settings, sys.argv[2], threading.Event())"
WORKER = _PART + "service.run_worker(settings, sys.argv[2], 'test', sys.argv[3])"


@contextmanager
def running(part: str, settings: Settings, url: str, *more: str) -> Iterator[psutil.Process]:
    """Run one of the parts above; whatever becomes of it, neither it nor a child of it is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", part, str(settings.town_root), url, *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=dict(clean_environ()),
    )  # fmt: skip
    seen = psutil.Process(process.pid)
    try:
        yield seen
    finally:
        for one in family(seen):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(10)


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and all its descendants, the youngest first."""
    try:
        return [*reversed(process.children(recursive=True)), process]
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process) -> None:
    """SIGKILL, and wait until it is gone; its parent need not have noticed."""
    process.kill()
    eventually(lambda: not lives(process))


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass
class OwnServer:
    """A Valkey server that a test may kill, stop and empty."""

    folder: Path
    url: str

    @property
    def pid(self) -> int:
        found = server_pid(self.folder)
        assert found is not None
        return found

    def kill(self) -> None:
        kill(psutil.Process(self.pid))

    def start_again(self) -> None:
        assert ensure_server(self.folder) == self.url

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it not answer inside the block."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def own_server(folder: Path) -> Iterator[OwnServer]:
    """A server in `folder`, gone after the test."""
    try:
        yield OwnServer(folder, ensure_server(folder))
    finally:
        for process in psutil.process_iter(["cwd"]):
            # Valkey changes into its data folder.
            if process.info["cwd"] == str(folder):
                kill(process)


@contextmanager
def a_clerk(town: Town) -> Iterator[Clerk]:
    """A clerk in the test's own process, which gives its desk back."""
    clerk, at_once = Clerk(town), threading.Event()
    at_once.set()
    try:
        yield clerk
    finally:
        clerk.serve(at_once)


def book_inbox(town: Town) -> None:
    """Have a clerk book all that there is."""
    with a_clerk(town) as clerk:
        while clerk.serve_once(0.05):
            pass
