"""The daemon as a process of its own, and the end of whatever belongs to a town."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import load_state
from gastown_mail.sessions import process_table, processes
from tests.support.processes import clean_environ
from tests.support.wait import eventually

DEADLINE = 60.0
"""Seconds in which a daemon must be up, and in which it must be gone."""


@contextmanager
def running_daemon(settings: Settings) -> Iterator[psutil.Process]:
    """`gastown-mail up` with all its processes, from its first heartbeat on."""
    up = subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", "--town", str(settings.town_root), "up", "--quiet"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=dict(clean_environ()), cwd=settings.town_root, start_new_session=True,
    )  # fmt: skip
    try:
        eventually(lambda: _has_beaten(settings, up), deadline=DEADLINE)
        yield psutil.Process(up.pid)
    finally:
        up.terminate()
        try:
            up.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait(DEADLINE)


def _has_beaten(settings: Settings, up: "subprocess.Popen[bytes]") -> bool:
    if up.poll() is not None:
        raise AssertionError(f"the daemon ended with {up.returncode}; {settings.log_file} says why")
    state = load_state(settings.town_root)
    return state.pid == up.pid and state.heartbeat_count > 0


def end_town(settings: Settings) -> None:
    """End the town's tmux server, its agents, its Redis, and whatever else names its folder."""
    tmux = shutil.which("tmux") or "tmux"
    place = ["-S" if settings.tmux_socket.startswith("/") else "-L", settings.tmux_socket]
    subprocess.run([tmux, *place, "kill-server"], capture_output=True, timeout=DEADLINE, check=False)
    processes.terminate_all(lambda: _belonging(str(settings.town_root)), grace=0.0)


def _belonging(folder: str) -> set[process_table.Process]:
    """The processes that have the folder in their environment or among their words."""
    rows = (
        process_table.read_process(pid)
        for pid in process_table.pids()
        if process_table.owned_by(pid, os.geteuid())
        and (
            folder.encode() in process_table.environment(pid)
            or folder in " ".join(process_table.arguments(pid))
        )
    )
    return {row for row in rows if row is not None}
