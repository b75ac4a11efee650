"""The folder of a test run: everything a test makes is in it, and every process a test starts names it.

By that mark a guard ends what is left when the run itself was killed: `python run_folder.py FOLDER PID`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_POLL = 0.25
_DEADLINE = 20.0
"""Seconds within which what is left of a run must have ended."""

_SHORT = 20
"""Bytes that the parent folder may have: paths of sockets below it have a limit."""


def make_run_folder() -> Path:
    """Make the folder of this run, the place of all temporary files from now on, and start its guard."""
    parent = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="gm-", dir=parent if len(parent) <= _SHORT else "/tmp")).resolve()
    folder.chmod(0o711)  # some tests make a folder in it for another user
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    subprocess.run(
        [sys.executable, __file__, str(folder), str(os.getpid())], cwd="/", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return folder


def end_run(folder: Path) -> list[str]:
    """End every process that names the folder, but this one; remove it. Return what was ended."""
    ended: dict[int, str] = {}
    until = time.monotonic() + _DEADLINE
    while time.monotonic() < until and (left := list(processes_of(folder))):
        for process in left:
            with suppress(psutil.Error):
                ended[process.pid] = " ".join(process.cmdline())[:200] or process.name()
                process.kill()
        time.sleep(_POLL / 5)
    shutil.rmtree(folder, ignore_errors=True)
    return list(ended.values())


def processes_of(folder: Path) -> Iterator[psutil.Process]:
    """The processes that name the folder: in their words, their environment or as their own folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_guard = __file__ in process.cmdline()
            if process.pid != os.getpid() and not is_guard and names(process, folder):
                yield process


def names(process: psutil.Process, folder: Path) -> bool:
    """Whether a live process names the folder: in words, environment or place. Raises psutil.Error."""
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    words = [*process.cmdline(), process.cwd(), *process.environ().values()]
    return any(str(folder) in word for word in words)


def _guard(folder: Path, pid: int) -> None:
    """Wait until this process has ended; then end what it left."""
    with suppress(psutil.NoSuchProcess):
        run = psutil.Process(pid)
        while run.is_running() and run.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL)
    if folder.exists():
        end_run(folder)


if __name__ == "__main__" and not os.fork():
    _guard(Path(sys.argv[1]), int(sys.argv[2]))
