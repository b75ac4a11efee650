"""A test run that is killed leaves no process and no folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support import run_folder
from tests.support.run_folder import processes_of
from tests.support.wait import DEADLINE, eventually

REPOSITORY = Path(__file__).parents[2]
WORDS = [sys.executable, "-m", "pytest", "-n", "2", "tests/acceptance/test_up.py", "-k", "slow_to_stop"]


@contextmanager
def a_run(parent: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A test run of several daemons, with its folder in `parent`."""
    run = subprocess.Popen(
        WORDS, cwd=REPOSITORY, env=os.environ | {"TMPDIR": str(parent)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(DEADLINE)


def folder_of(run: int) -> Path | None:
    """The folder of this run, as its guard knows it."""
    for process in psutil.process_iter(["cmdline"]):
        match process.info["cmdline"]:
            case [_, program, folder, pid] if program == run_folder.__file__ and pid == str(run):
                return Path(folder)
    return None


def has_agents(folder: Path) -> bool:
    names = [process.name() for process in processes_of(folder)]
    return any("valkey" in name for name in names) and any("tmux" in name for name in names)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_a_signal_ends(number: signal.Signals) -> None:
    with a_run(Path("/tmp")) as run:
        folder = eventually(lambda: folder_of(run.pid), deadline=DEADLINE)
        assert folder
        eventually(partial(has_agents, folder), deadline=DEADLINE, step=0.2)
        started = list(processes_of(folder))
        assert psutil.Process(run.pid) not in started, "the run itself is ended by the signal"

        os.kill(run.pid, number)

        eventually(lambda: not folder.exists(), deadline=DEADLINE, step=0.2)
        assert [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
