"""The children of a supervisor end with their parent in any case."""

import os
import subprocess
import sys

import psutil

from tests.support.processes import clean_environ, kill, lives
from tests.support.wait import eventually

STUBBORN = """
import signal, sys, threading, time
from gastown_mail.daemon import supervisor
supervisor.STOP_DEADLINE = supervisor.KILL_GRACE = 0.2

def run(stop):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        time.sleep(60)

child = supervisor.ProcessSpec("stubborn", run)
supervisor.Supervisor([child], in_child=lambda: None, on_death=lambda name: None)\
  .run(threading.Event(), lambda: None)
"""


def test_a_child_that_missed_or_ignores_sigterm_ends_after_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, env=dict(clean_environ())
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (child,) = psutil.Process(parent.pid).children()
        try:
            kill(psutil.Process(parent.pid))

            eventually(lambda: not lives(child))
        finally:
            if lives(child):
                os.kill(child.pid, 9)
