"""What the kernel says about processes: from /proc on Linux, through psutil elsewhere.

A count of all processes of the machine: who they are, whose children, and which incarnation they carry.

In a large town a count costs more than all the rest of an act. So those who ask at the same time share one,
and what was read a moment ago is not read again, unless it is so young that it may not have begun its own
program yet."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
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


VARIABLE = "GASTOWN_INCARNATION"

CACHE_SECONDS = 1.0
"""Seconds for which a pid is believed to be the same process: the kernel gives no pid away again so soon."""

STABLE_AFTER = 1.0
"""Seconds of age from which on a process has long begun its own program, with the environment that stays."""

_ENTRY = f"\0{VARIABLE}=".encode()


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process as it was read at `at` (monotonic seconds): its row, and its incarnation or b"".

    `told` is false for one that showed no environment at all, as in the middle of an exec. `grown`: what was
    read stays.
    """

    row: ProcessInfo
    incarnation: bytes
    read_at: float
    env_readable: bool
    stable: bool

    def may_have(self, incarnation: bytes) -> bool:
        """Does nothing speak against it that this one, which carried the incarnation, still does?"""
        return self.incarnation == incarnation or not self.env_readable


class ProcessTable:
    """Counts, shared by all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._entries: Mapping[int, ProcessEntry] = {}

    def snapshot(self, since: float | None = None) -> Mapping[int, ProcessEntry]:
        """All processes by pid, from a count that began after `since` (monotonic; default: this moment).

        One that has just ended may still be among them.
        """
        wanted = time.monotonic() if since is None else since
        with self._lock:
            if self._began < wanted:
                began = time.monotonic()
                # Both only when the count came to its end: one that failed says nothing.
                self._entries, self._began = _read_entries(self._entries, began), began
            return self._entries

    def with_incarnation(self, incarnation: str) -> set[Process]:
        """Every living process that carries this incarnation."""
        entry = incarnation.encode()
        claimed = [seen.row.process for seen in self.snapshot().values() if seen.incarnation == entry]
        # Looked at once more: it may have ended, or begun a program with another environment.
        looked = {process: _read_entry(process.pid, 0.0) for process in claimed}
        return {p for p, seen in looked.items() if seen and seen.row.process == p and seen.may_have(entry)}


def _read_entries(known: Mapping[int, ProcessEntry], now: float) -> dict[int, ProcessEntry]:
    entries = {}
    for pid in pids():
        seen = known.get(pid)
        if seen is None or not seen.stable or now - seen.read_at > CACHE_SECONDS:
            seen = _read_entry(pid, now)
        if seen is not None:
            entries[pid] = seen
    return entries


def _read_entry(pid: int, now: float) -> ProcessEntry | None:
    # The row first: were the pid given away in between, the incarnation would be a stranger's.
    row = read_process(pid)
    if row is None:
        return None
    environ = environment(pid)
    # The kernel's own processes (group 0) never show an environment.
    told = environ != b"\0" or row.group == 0
    grown = told and age(row.process) >= STABLE_AFTER
    return ProcessEntry(row, _incarnation(environ), now, told, grown)


def _incarnation(environment: bytes) -> bytes:
    _, found, rest = environment.partition(_ENTRY)
    return rest.partition(b"\0")[0] if found else b""
