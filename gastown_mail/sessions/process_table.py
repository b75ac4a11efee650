"""The machine's processes: from /proc on Linux, through psutil elsewhere.

In a large town one scan of all processes costs more than the rest of a cycle. Threads that ask at the same
time share a scan. A process that was read a moment ago is not read again, unless it is so young that it may
not run its own program yet.
"""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gastown_mail.contracts.errors import StateUnknown

LINUX = sys.platform.startswith("linux")

_CACHE_SECONDS = 1.0
"""Seconds for which a pid is taken for the same process: the kernel does not reuse a pid that soon."""

_STABLE_AFTER = 1.0
"""Seconds of age after which a process surely runs its own program and keeps its environment."""

_PS_DEADLINE = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")
_NOT_READ = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that say nothing about the process except that it could not be read."""
_CHUNK = 1 << 15
"""Bytes per read. Python allocates that much for each file, and allocating takes longer than reading."""
_ENTRY = b"\0GASTOWN_INCARNATION="


@dataclass(frozen=True, slots=True)
class Process:
    """A live process (not a zombie), its parent, its process group and its session (the kernel's).

    Equal means the same pid and start time: the kernel reuses a pid, but not with the same start time.
    `environ_at`: where its environment lies in its memory, which changes with each exec; 0 if unknown.
    """

    pid: int
    started: float
    parent: int = field(default=0, compare=False)
    group: int = field(default=0, compare=False)
    session: int = field(default=0, compare=False)
    environ_at: int = field(default=0, compare=False)

    def age(self) -> float:
        """Return its age in seconds."""
        if not LINUX:
            return time.time() - self.started
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICKS


def pids() -> list[int]:
    """Return the pids of all processes."""
    if not LINUX:
        return list(psutil.pids())
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def read_process(pid: int) -> Process | None:
    """Return the live process of this pid; None when there is none."""
    if LINUX:
        stat = _stat(pid)
        if len(stat) < 20 or stat[0] in b"ZXx":
            return None
        parent, group, session = map(int, stat[1:4])
        environ_at = int(stat[47]) if len(stat) > 47 else 0
        return Process(pid, float(stat[19]), parent, group, session, environ_at)
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Process(pid, process.create_time(), process.ppid(), os.getpgid(pid), os.getsid(pid))
    except (OSError, psutil.Error):
        return None


def read_all() -> list[Process]:
    """Return all live processes."""
    return [process for pid in pids() if (process := read_process(pid))]


def is_zombie(pid: int, parent: int) -> bool:
    """Return whether this child has ended and its parent has not reaped it yet. False when unsure."""
    if not LINUX:
        return False
    stat = _stat(pid)
    return len(stat) > 1 and stat[0] in b"ZXx" and int(stat[1]) == parent


def zombie_status(pid: int) -> int | None:
    """Return the exit status of a zombie, 128 + the number of a signal that ended it; None for others."""
    stat = _stat(pid) if LINUX else []
    if len(stat) < 50 or stat[0] not in b"ZXx":
        return None
    code = int(stat[49])
    return 128 + (code & 0x7F) if code & 0x7F else code >> 8


def is_stopped(pid: int) -> bool:
    """Return whether a signal such as Ctrl-Z's has stopped this process. False when unsure."""
    if LINUX:
        return _stat(pid)[:1] == [b"T"]
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except (OSError, psutil.Error):
        return False


def has_terminal(pid: int) -> bool:
    """Return whether a process has a controlling terminal."""
    if LINUX:
        stat = _stat(pid)
        return len(stat) > 4 and stat[4] != b"0"
    try:
        return psutil.Process(pid).terminal() is not None
    except (OSError, psutil.Error):
        return False


def foreground_group(pid: int) -> int:
    """Return the foreground process group of a process's terminal; 0 or less when it is unknown."""
    if LINUX:
        stat = _stat(pid)
        return int(stat[5]) if len(stat) > 5 else 0
    # psutil does not know a terminal's foreground group; ps does, everywhere.
    command = ["/bin/ps", "-o", "tpgid=", "-p", str(pid)]
    try:
        return int(subprocess.run(command, capture_output=True, timeout=_PS_DEADLINE, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def environment(pid: int) -> bytes:
    """Return the environment a process was started with, a NUL around each entry; b"\\0" if unreadable."""
    if LINUX:
        return b"\0" + _read(f"/proc/{pid}/environ")
    try:
        entries = psutil.Process(pid).environ().items()
    except (OSError, psutil.Error):
        return b"\0"
    return b"\0" + b"".join(os.fsencode(f"{key}={value}\0") for key, value in entries)


def arguments(pid: int) -> list[str]:
    """Return a process's argv; empty when it cannot be read."""
    if LINUX:
        words = _read(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")
        return words[:-1] if words[-1] == "" else words
    try:
        return list(psutil.Process(pid).cmdline())
    except (OSError, psutil.Error):
        return []


def owned_by(pid: int, uid: int) -> bool:
    """Return whether a process belongs to this user; other users' environments are unreadable."""
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid if LINUX else psutil.Process(pid).uids().real
    except (OSError, psutil.Error):
        return False
    return bool(owner == uid)


def _stat(pid: int) -> list[bytes]:
    # The name in parentheses may hold spaces and parentheses: what follows the last one is fixed (proc(5)).
    stat = _read(f"/proc/{pid}/stat")
    return stat[stat.rfind(b")") + 2 :].split()


def _read(path: str) -> bytes:
    # Raw calls: a scan opens a file per process of the machine.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_READ:
            raise StateUnknown(
                f"{path} cannot be read ({error.strerror}), so it is unknown whether the process lives; "
                "free file descriptors or memory, then try again"
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """A process as it was read at `read_at` (monotonic seconds), and its incarnation or b"".

    `env_readable` is false for a process that showed no environment at all, as in the middle of an exec.
    `stable`: its environment does not change any more, unless the program writes over it.
    """

    process: Process
    incarnation: bytes
    read_at: float
    env_readable: bool
    stable: bool

    @classmethod
    def read(cls, pid: int, now: float, before: "_Entry | None" = None) -> "_Entry | None":
        """Read a process; `before` is what was read of this pid earlier."""
        # The process first: were its pid reused in between, the incarnation would be a stranger's.
        process = read_process(pid)
        if process is None:
            return None
        environ = environment(pid)
        incarnation = environ.partition(_ENTRY)[2].partition(b"\0")[0]
        if not incarnation and before and before.process == process:
            # Without an exec since then, the program has only written over its environment.
            same_program = 0 < before.process.environ_at == process.environ_at
            incarnation = before.incarnation if same_program else b""
        # The kernel's own processes (group 0) never show an environment.
        readable = environ != b"\0" or process.group == 0
        return cls(process, incarnation, now, readable, readable and process.age() >= _STABLE_AFTER)

    def may_have(self, incarnation: bytes) -> bool:
        """Return True unless it certainly lost the incarnation that it had before."""
        return self.incarnation == incarnation or not self.env_readable


class ProcessTable:
    """Scans of all processes, shared by all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._entries: Mapping[int, _Entry] = {}

    def snapshot(self, since: float | None = None) -> list[Process]:
        """Return all processes, from a scan that began after `since` (monotonic seconds; default: now).

        One that has just ended may still be among them.
        """
        return [entry.process for entry in self._scan(since).values()]

    def with_incarnation(self, incarnation: str) -> set[Process]:
        """Return every live process that has this incarnation in its environment."""
        wanted = incarnation.encode()
        claimed = [entry for entry in self._scan().values() if entry.incarnation == wanted]
        # Read once more: it may have ended, or begun a program with another environment.
        fresh = {before.process: _Entry.read(before.process.pid, 0.0, before) for before in claimed}
        return {p for p, entry in fresh.items() if entry and entry.process == p and entry.may_have(wanted)}

    def _scan(self, since: float | None = None) -> Mapping[int, _Entry]:
        wanted = time.monotonic() if since is None else since
        with self._lock:
            if self._began < wanted:
                began = time.monotonic()
                entries: dict[int, _Entry] = {}
                for pid in pids():
                    entry = self._entries.get(pid)
                    if entry is None or not entry.stable or began - entry.read_at > _CACHE_SECONDS:
                        entry = _Entry.read(pid, began, entry)
                    if entry is not None:
                        entries[pid] = entry
                # Both only now: a scan that failed halfway counts for nothing.
                self._entries, self._began = entries, began
            return self._entries
