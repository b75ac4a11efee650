"""What the kernel says about processes: from /proc on Linux, through psutil elsewhere."""

import errno
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from gastown_mail.contracts.errors import StateUnknown

LINUX = sys.platform.startswith("linux")
PS_DEADLINE = 2.0
_NOT_LOOKED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that say nothing of the process: it was not looked at."""

_TICKS = os.sysconf("SC_CLK_TCK")
_CHUNK = 1 << 15
"""Bytes read at once; Python sets aside that much for each file, and that takes longer than the reading."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: a pid may be given to another, a pid with its start time is not."""

    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A living process (no zombie), its parent, and its process group."""

    process: Process
    parent: int
    group: int


def pids() -> list[int]:
    """Return the pids of all processes there are."""
    if not LINUX:
        return list(psutil.pids())
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def read_process(pid: int) -> ProcessInfo | None:
    """Return what is known of a pid; None when nothing lives there."""
    return _linux_process(pid) if LINUX else _psutil_process(pid)


def age(process: Process) -> float:
    """Return for how many seconds a process has existed."""
    if not LINUX:
        return time.time() - process.started
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / _TICKS


def is_zombie(pid: int, parent: int) -> bool:
    """Say whether this child has ended and its parent has not noticed yet; only what is seen counts."""
    if not LINUX:
        return False
    fields = _stat(pid)
    return len(fields) > 1 and fields[0] in b"ZXx" and int(fields[1]) == parent


def read_all() -> dict[int, ProcessInfo]:
    """Return all living processes by pid."""
    rows = {pid: read_process(pid) for pid in pids()}
    return {pid: found for pid, found in rows.items() if found is not None}


def foreground_group(pid: int) -> int:
    """Return the process group in front on a process's terminal; 0 or less when it cannot be told."""
    if not LINUX:
        return _ps_foreground(pid)
    fields = _stat(pid)
    return int(fields[5]) if len(fields) > 5 else 0


def environment(pid: int) -> bytes:
    """Return a process's environment as it was started, entries between NULs; no entries if unreadable."""
    return b"\0" + (_read(f"/proc/{pid}/environ") if LINUX else _psutil_environment(pid))


def arguments(pid: int) -> list[str]:
    """Return a process's argv; empty when there is none to be read."""
    if not LINUX:
        return _psutil_arguments(pid)
    words = _read(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")
    return words[:-1] if words[-1] == "" else words


def owned_by(pid: int, uid: int) -> bool:
    """Say whether a process is of this user; other users' environments cannot be ours to read."""
    try:
        return (
            Path(f"/proc/{pid}").stat().st_uid == uid
            if LINUX
            else bool(psutil.Process(pid).uids().real == uid)
        )
    except (OSError, psutil.Error):
        return False


def _read(path: str) -> bytes:
    # Raw calls: a scan opens a file per process of the machine.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_LOOKED:
            raise StateUnknown(
                f"{path} cannot be looked at ({error.strerror}); nothing is concluded from that"
            ) from error
        return b""
    try:
        parts = []
        while part := os.read(file, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(file)


def _stat(pid: int) -> list[bytes]:
    # The name in parentheses may hold spaces and parentheses: what follows the last one is fixed (proc(5)).
    stat = _read(f"/proc/{pid}/stat")
    return stat[stat.rfind(b")") + 2 :].split()


def _linux_process(pid: int) -> ProcessInfo | None:
    fields = _stat(pid)
    if len(fields) < 20 or fields[0] in b"ZXx":
        return None
    return ProcessInfo(Process(pid, float(fields[19])), parent=int(fields[1]), group=int(fields[2]))


def _psutil_process(pid: int) -> ProcessInfo | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessInfo(Process(pid, process.create_time()), process.ppid(), os.getpgid(pid))
    except (OSError, psutil.Error):
        return None


def _ps_foreground(pid: int) -> int:
    # psutil does not tell the terminal's foreground group; ps does, everywhere.
    try:
        answer = subprocess.run(
            ["/bin/ps", "-o", "tpgid=", "-p", str(pid)], capture_output=True, timeout=PS_DEADLINE, check=True
        )
        return int(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _psutil_environment(pid: int) -> bytes:
    try:
        environ = psutil.Process(pid).environ()
    except (OSError, psutil.Error):
        return b""
    return b"".join(f"{key}={value}\0".encode(errors="surrogateescape") for key, value in environ.items())


def _psutil_arguments(pid: int) -> list[str]:
    try:
        return list(psutil.Process(pid).cmdline())
    except (OSError, psutil.Error):
        return []
