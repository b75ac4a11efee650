"""Finding and ending the processes of one incarnation: the whole tree, and nobody else.

A session's processes carry its token in their environment, however they detached themselves; what dropped its
environment is found as a descendant of one that did not. Signals go through a pidfd where there are pidfds,
else to a pid whose start time was looked at just before.

Whether a bare shell is in front in a pane: what is typed there would run as a command."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Protocol

from gastown_mail.sessions import process_table
from gastown_mail.sessions.process_table import Process, ProcessTable

KILL_DEADLINE = 5.0
KILL_LOOK = 0.5
POLL_STEP = 0.02

_table = ProcessTable()


class Clock(Protocol):
    """Seconds that never step back."""

    def __call__(self) -> float: ...


def with_incarnation(token: str) -> set[Process]:
    """Return every living process that carries this incarnation. Raises ValueError for an empty token."""
    if not token:
        raise ValueError("an empty token would be carried by nobody")
    return _table.with_incarnation(token)


def descendants(
    roots: Collection[Process], *, exclude: Collection[int] = (), since: float | None = None
) -> set[Process]:
    """Return these processes and all their descendants that live; never `spare`, nor through it.

    `since`: a moment (monotonic) from which on a count of the processes is fresh enough.
    """
    waiting = [root for root in roots if alive(root)]
    children: dict[int, list[Process]] = {}
    for process in _table.snapshot(since) if waiting else ():
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    while waiting:
        process = waiting.pop()
        if process not in found and process.pid not in exclude:
            found.add(process)
            waiting.extend(children.get(process.pid, ()))
    return set(filter(alive, found))


def child_of(parent: int, pid: int) -> Process | None:
    """Return the process `pid` if it is a living child of `parent`: a pid alone may have been given away."""
    process = process_table.read_process(pid) if pid > 1 else None
    return process if process is not None and process.parent == parent else None


def alive(process: Process) -> bool:
    """Say whether this very process lives; a zombie does not."""
    return process_table.read_process(process.pid) == process


def never_signalled() -> frozenset[int]:
    """Return the pids that are never signalled: 0, 1, this process, and its ancestors."""
    pid, found = os.getpid(), {0, 1}
    while pid not in found:
        found.add(pid)
        row = process_table.read_process(pid)
        pid = row.parent if row is not None else 1
    return frozenset(found)


def terminate_all(
    find: Callable[[], set[Process]],
    *,
    grace: float,
    exclude: Collection[int] = (),
    terminate_last: Collection[Process] = (),
    before_kill: Callable[[], None] = lambda: None,
    clock: Clock = time.monotonic,
) -> set[Process]:
    """End what `find` finds and all its descendants; return what survived SIGKILL for KILL_DEADLINE seconds.

    SIGTERM (to `last` only when the others have ended), at most `grace` seconds (less if all end sooner),
    then `before_kill()`, then SIGKILL to what is left or came since. `find` is called after each step.
    """
    spared = never_signalled() | set(exclude)
    signalled: set[Process] = set()

    def remaining() -> set[Process]:
        since = time.monotonic()
        found = {process for process in find() | signalled if process.pid not in spared}
        living = descendants(found, exclude=spared, since=since)
        return {process for process in living if not _is_before_exec(process, exclude)}

    _terminate(remaining, signalled, terminate_last, until=clock() + grace, clock=clock)
    before_kill()
    return _kill(remaining, signalled, until=clock() + KILL_DEADLINE, clock=clock)


def _is_before_exec(process: Process, servers: Collection[int]) -> bool:
    """Is it what a server has just forked, before it runs a program of its own?

    Until then it shares the server's pipe for signals: SIGTERM to it ends the server (seen on tmux 3.3a).
    """
    row = process_table.read_process(process.pid)
    if row is None or row.parent not in servers:
        return False
    return process_table.arguments(process.pid) == process_table.arguments(row.parent)


def _terminate(
    find_remaining: Callable[[], set[Process]],
    signalled: set[Process],
    terminate_last: Collection[Process],
    *,
    until: float,
    clock: Clock,
) -> None:
    everybody = find_remaining()
    remaining = everybody - set(terminate_last) or everybody
    while remaining:
        send_signal(remaining - signalled, signal.SIGTERM)
        signalled |= remaining
        if wait_ended(remaining, timeout=max(0.0, until - clock())) or clock() >= until:
            return
        remaining = find_remaining()


def _kill(
    find_remaining: Callable[[], set[Process]], signalled: set[Process], *, until: float, clock: Clock
) -> set[Process]:
    while remaining := find_remaining():
        if clock() >= until:
            return remaining
        send_signal(remaining, signal.SIGKILL)
        signalled |= remaining
        wait_ended(remaining, timeout=KILL_LOOK)
    return set()


def send_signal(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each of these very processes; one that is gone, or another user's, is left out."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError), _pidfd(process) as handle:
            if not alive(process) or process.pid <= 1:
                continue
            if handle is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)


def wait_ended(processes: Iterable[Process], *, timeout: float) -> set[Process]:
    """Wait until all of these have ended, at most `timeout` seconds; return those that have not."""
    until = time.monotonic() + timeout
    waiting = {process for process in processes if alive(process)}
    while waiting and (rest := until - time.monotonic()) > 0:
        _wait_for_one(next(iter(waiting)), rest)
        waiting = {process for process in waiting if alive(process)}
    return waiting


def _wait_for_one(process: Process, timeout: float) -> None:
    try:
        with _pidfd(process) as handle:
            if handle is None:
                time.sleep(min(timeout, POLL_STEP))
            else:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(timeout * 1000)
    except ProcessLookupError:
        return


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise
    except OSError:  # a kernel without pidfds
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def describe(processes: Iterable[Process]) -> str:
    """Name processes for people: pid and command."""
    named = sorted(
        (process.pid, " ".join(process_table.arguments(process.pid))[:80]) for process in processes
    )
    return ", ".join(f"{pid} ({words})" for pid, words in named)


SHELLS = frozenset(("sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "ash", "tcsh", "csh"))
_MULTI_CALL = "busybox"
_OPTIONS_WITH_VALUE = {"fish": ("-C", "--init-command"), "bash": ("--rcfile", "--init-file")}


def foreground_shell(pid: int) -> str | None:
    """Return the name of the bare shell in front on the terminal of a pane's process; "" when none is.

    None when it cannot be told. A shell that runs a script or `-c` is a program like any other.
    """
    group = process_table.foreground_group(pid)
    if group <= 0:
        return None
    return bare_shell(process_table.arguments(group) or _other_group_member(group))


def bare_shell(argv: Sequence[str]) -> str | None:
    """Return the name of a shell that reads commands from the terminal; "" for others, None for no argv."""
    if not argv:
        return None
    if _name(argv[0]) == _MULTI_CALL and len(argv) > 1:
        argv = argv[1:]
    name = _name(argv[0])
    return name if name in SHELLS and not _has_program(argv[1:], _OPTIONS_WITH_VALUE.get(name, ())) else ""


def is_shell(argv: Sequence[str]) -> bool:
    """Say whether this is a shell, with a program to run or without."""
    return bool(argv) and _name(argv[0]) in SHELLS


def _other_group_member(group: int) -> list[str]:
    # The first program of a pipeline may have ended while the rest of its group is still in front.
    members = (process.pid for process in process_table.read_all() if process.group == group)
    return next((words for pid in members if (words := process_table.arguments(pid))), [])


def _name(word: str) -> str:
    return PurePath(word).name.removeprefix("-")


def _has_program(words: Sequence[str], valued: Sequence[str]) -> bool:
    waiting = iter(words)
    for word in waiting:
        if not word.startswith(("-", "+")) or word == "-":
            return word != "-"
        if word == "--":
            return next(waiting, None) is not None
        if word.startswith("--command") or _short(word, "c"):
            return True
        if _short(word, "s"):
            return False
        if word in valued or _short(word, "o") or _short(word, "O"):
            next(waiting, None)
    return False


def _short(word: str, letter: str) -> bool:
    return not word.startswith("--") and letter in word
