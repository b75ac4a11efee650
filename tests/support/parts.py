"""Parts of the daemon: each in a process of its own, or the clerk in the test's."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from gastown_mail.contracts.settings import Settings
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.town.town import Town
from tests.support.processes import clean_environ, family

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
    """Run one of the parts above; neither it nor a child of it is left afterwards."""
    popen = subprocess.Popen(
        [sys.executable, "-c", part, str(settings.town_root), url, *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=clean_environ(),
    )  # fmt: skip
    process = psutil.Process(popen.pid)
    try:
        yield process
    finally:
        for member in family(process):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        popen.wait(60)


@contextmanager
def a_clerk(town: Town) -> Iterator[Clerk]:
    """A clerk in the test's own process; it gives its lease back at the end."""
    clerk, at_once = Clerk(town), threading.Event()
    at_once.set()
    try:
        yield clerk
    finally:
        clerk.serve(at_once)


def accept_inbox(town: Town) -> None:
    """Have a clerk accept everything in the inbox."""
    with a_clerk(town) as clerk:
        while clerk.serve_once(0.05):
            pass
