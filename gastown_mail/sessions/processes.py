"""Finding and ending the processes of one incarnation: its whole tree, and nothing else.

The processes of a session have its token in their environment, however they detached themselves. A process
that dropped its environment is found as a descendant of one that did not, or in the same session of the
kernel's. Shared daemons are spared (`shared_daemons`). Signals go through a pidfd where the system has
pidfds, else to a pid whose start time was checked just before.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from gastown_mail.sessions import process_table
from gastown_mail.sessions.process_table import Process, ProcessTable
from gastown_mail.sessions.shared_daemons import SharedDaemons

_KILL_DEADLINE = 5.0
_KILL_LOOK = 0.5
_POLL_STEP = 0.02

_Clock = Callable[[], float]
_table = ProcessTable()


def with_incarnation(token: str) -> set[Process]:
    """Return every live process that has this incarnation. Raises ValueError for an empty token."""
    if not token:
        raise ValueError("an empty token is not an incarnation")
    return _table.with_incarnation(token)


def descendants(
    roots: Collection[Process], *, exclude: Collection[int] = (), since: float | None = None
) -> set[Process]:
    """Return these processes and their live descendants. Does not include or descend into `exclude`.

    What is in the session that one of them leads is a descendant too: its parents may have ended.
    `since`: a scan of the processes that began at this time (monotonic) or later is fresh enough.
    """
    waiting = list(filter(alive, roots))
    children: dict[int, list[Process]] = {}
    for process in _table.snapshot(since) if waiting else ():
        for pid in {process.parent, process.session}:
            children.setdefault(pid, []).append(process)
    family: set[Process] = set()
    while waiting:
        process = waiting.pop()
        if process not in family and process.pid not in exclude:
            family.add(process)
            waiting.extend(children.get(process.pid, ()))
    return set(filter(alive, family))


def child_of(parent: int, pid: int) -> Process | None:
    """Return the process `pid` if it is a live child of `parent`; the pid alone could be reused."""
    process = process_table.read_process(pid) if pid > 1 else None
    return process if process is not None and process.parent == parent else None


def alive(process: Process) -> bool:
    """Return whether this very process is alive; a zombie is not."""
    return process_table.read_process(process.pid) == process


def _never_signalled() -> frozenset[int]:
    """Return the pids that are never signalled: 0, 1, this process, and its ancestors."""
    pid, pids = os.getpid(), {0, 1}
    while pid not in pids:
        pids.add(pid)
        process = process_table.read_process(pid)
        pid = process.parent if process is not None else 1
    return frozenset(pids)


def terminate_all(
    find: Callable[[], set[Process]],
    *,
    grace: float,
    exclude: Collection[int] = (),
    terminate_last: Collection[Process] = (),
    before_kill: Callable[[], None] = lambda: None,
    spare: SharedDaemons | None = None,
    clock: _Clock = time.monotonic,
) -> set[Process]:
    """End what `find` returns and all descendants; return what survived SIGKILL for _KILL_DEADLINE seconds.

    Spares what is, or lives below, a daemon of `spare`, unless it was sent a signal before it detached.

    Sends SIGTERM (to `terminate_last` only when the others have ended), waits at most `grace` seconds, calls
    `before_kill()`, then sends SIGKILL to what is left or new. Calls `find` again after each step.
    """
    untouched = _never_signalled() | set(exclude)
    signalled: set[Process] = set()

    def remaining() -> set[Process]:
        since = time.monotonic()
        roots = {process for process in find() | signalled if process.pid not in untouched}
        family = descendants(roots, exclude=untouched, since=since)
        living = {process for process in family if not _is_before_exec(process, exclude)}
        if spare is not None:
            spare.find(living, but=signalled)
            living -= _below(spare, living, since) - signalled
            spare.alone = spare.alone and not living
        return living

    _terminate(remaining, signalled, terminate_last, until=clock() + grace, clock=clock)
    before_kill()
    return _kill(remaining, signalled, until=clock() + _KILL_DEADLINE, clock=clock)


def _below(spare: SharedDaemons, living: Collection[Process], since: float) -> set[Process]:
    """Return the shared daemons and what lives below them."""
    if not spare.found:
        return set()
    inside = {process for process in living if spare.contain(process)}
    return descendants(spare.found.keys() | inside, since=since)


def _is_before_exec(process: Process, servers: Collection[int]) -> bool:
    """Return whether a server has just forked it, and it does not run its own program yet.

    Until then it shares the server's pipe for signals: SIGTERM to it ends the server (seen on tmux 3.3a).
    """
    fresh = process_table.read_process(process.pid)
    if fresh is None or fresh.parent not in servers:
        return False
    return process_table.arguments(process.pid) == process_table.arguments(fresh.parent)


def _terminate(
    find_remaining: Callable[[], set[Process]],
    signalled: set[Process],
    terminate_last: Collection[Process],
    *,
    until: float,
    clock: _Clock,
) -> None:
    everything = find_remaining()
    remaining = everything - set(terminate_last) or everything
    while remaining:
        send_signal(remaining - signalled, signal.SIGTERM)
        signalled |= remaining
        if wait_ended(remaining, timeout=max(0.0, until - clock())) or clock() >= until:
            return
        remaining = find_remaining()


def _kill(
    find_remaining: Callable[[], set[Process]], signalled: set[Process], *, until: float, clock: _Clock
) -> set[Process]:
    while remaining := find_remaining():
        if clock() >= until:
            return remaining
        send_signal(remaining, signal.SIGKILL)
        signalled |= remaining
        wait_ended(remaining, timeout=_KILL_LOOK)
    return set()


def send_signal(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to exactly these processes, except those that ended or belong to another user."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError), _pidfd(process) as handle:
            if not alive(process) or process.pid <= 1:
                continue
            if handle is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)


def wait_ended(processes: Iterable[Process], *, timeout: float) -> set[Process]:
    """Wait at most `timeout` seconds until all of these have ended; return those that have not."""
    until = time.monotonic() + timeout
    waiting = set(filter(alive, processes))
    while waiting and (rest := until - time.monotonic()) > 0:
        with contextlib.suppress(ProcessLookupError), _pidfd(next(iter(waiting))) as handle:
            if handle is None:
                time.sleep(min(rest, _POLL_STEP))
            else:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(rest * 1000)
        waiting = set(filter(alive, waiting))
    return waiting


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    """Open a pidfd; None when the system or the kernel has none. Raises ProcessLookupError."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def describe(processes: Iterable[Process]) -> str:
    """Return the pids and commands of processes, for display."""
    named = sorted(
        (process.pid, " ".join(process_table.arguments(process.pid))[:80]) for process in processes
    )
    return ", ".join(f"{pid} ({words})" for pid, words in named)
