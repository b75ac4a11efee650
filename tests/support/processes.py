"""Processes in tests: started in a clean environment, stopped, killed; none is left afterwards."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from gastown_mail.sessions import process_table, processes
from tests.support.run_folder import names
from tests.support.wait import DEADLINE, eventually


def clean_environ(**more: str) -> dict[str, str]:
    """The machine's environment without any town's or tmux's variables."""
    foreign = ("GASTOWN_", "GT_", "TMUX")
    kept = {k: v for k, v in os.environ.items() if k == "TMUX_TMPDIR" or not k.startswith(foreign)}
    return {**kept, **more}


class Process:
    """A process of a test, in a session of its own; its output goes to a file."""

    def __init__(self, words: list[str], environ: Mapping[str, str], cwd: Path, output: Path) -> None:
        self.output = output
        with output.open("wb") as stream:
            self.popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env=environ, cwd=cwd, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.popen.pid

    def words(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")

    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    def children(self) -> list[psutil.Process]:
        """Its living descendants."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants, the youngest first."""
        return family(psutil.Process(self.pid))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end and return the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(DEADLINE)


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return the process and all its descendants, the youngest first."""
    with suppress(psutil.NoSuchProcess):
        return [*reversed(process.children(recursive=True)), process]
    return []


def lives(process: psutil.Process) -> bool:
    """True unless the process has ended or is a zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def gone(pid: int) -> bool:
    """True if no process lives under this pid."""
    return process_table.read_process(pid) is None


def kill(process: psutil.Process) -> None:
    """Send SIGKILL and wait for the end; its parent need not have noticed."""
    process.kill()
    eventually(lambda: not lives(process))


def clear_away(process: psutil.Process) -> None:
    """The same for what a scan found, which may have ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        kill(process)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop these processes with SIGSTOP inside the block."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def end_tmux_server(socket: str, environ: Mapping[str, str] | None = None) -> None:
    """End the tmux server at `socket`, a name or a path, and remove the socket."""
    option = "-S" if socket.startswith("/") else "-L"
    subprocess.run(
        ["tmux", option, socket, "kill-server"],
        env=environ,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    folder = (environ or os.environ).get("TMUX_TMPDIR", "/tmp")
    (Path(folder) / f"tmux-{os.getuid()}" / socket).unlink(missing_ok=True)


def end_processes_of(folder: Path) -> None:
    """Kill all processes that name this folder; fail if one survives."""
    left = processes.terminate_all(lambda: _processes_of(folder), grace=0.0)
    assert not left, f"left: {processes.describe(left)}"


def _processes_of(folder: Path) -> set[process_table.Process]:
    """Find the processes that have the folder in their environment, their command line or as their cwd."""
    mine = (pid for pid in process_table.pids() if process_table.owned_by(pid, os.geteuid()))
    return set(filter(None, (process_table.read_process(pid) for pid in mine if _names(pid, folder))))


def _names(pid: int, folder: Path) -> bool:
    with suppress(psutil.Error):
        return names(psutil.Process(pid), folder)
    return False
