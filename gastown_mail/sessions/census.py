"""A count of all processes of the machine: who they are, whose children, and which incarnation they carry.

In a large town a count costs more than all the rest of an act. So those who ask at the same time share one,
and what was read a moment ago is not read again, unless it is so young that it may not have begun its own
program yet.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from gastown_mail.sessions import kernel
from gastown_mail.sessions.kernel import Process, ProcessInfo

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
    for pid in kernel.pids():
        seen = known.get(pid)
        if seen is None or not seen.stable or now - seen.read_at > CACHE_SECONDS:
            seen = _read_entry(pid, now)
        if seen is not None:
            entries[pid] = seen
    return entries


def _read_entry(pid: int, now: float) -> ProcessEntry | None:
    # The row first: were the pid given away in between, the incarnation would be a stranger's.
    row = kernel.read_process(pid)
    if row is None:
        return None
    environment = kernel.environment(pid)
    # The kernel's own processes (group 0) never show an environment.
    told = environment != b"\0" or row.group == 0
    grown = told and kernel.age(row.process) >= STABLE_AFTER
    return ProcessEntry(row, _incarnation(environment), now, told, grown)


def _incarnation(environment: bytes) -> bytes:
    _, found, rest = environment.partition(_ENTRY)
    return rest.partition(b"\0")[0] if found else b""
