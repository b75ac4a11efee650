"""Processes that are started, watched, restarted and stopped together. They are forked, so they share memory.

Whoever kills the parent ends the children too: each watches a pipe whose other end only the parent holds.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError
from gastown_mail.plumbing.log import log_event

TICK = 0.25
"""Seconds between two looks of the parent at its stop flag."""

STOP_DEADLINE = 10.0
"""Seconds in which a child may finish what it does; after them its act is cut, to be gone on with later."""

KILL_GRACE = 2.0
CRASH_WINDOW, MAX_RESTART_PAUSE = 2.0, 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessSpec:
    """A process of the pool: its name, and what it runs until the event is set."""

    name: str
    run: Callable[[threading.Event], None]


@dataclass
class _Slot:
    """Where a child sits: the process, since when, and when it may be started again."""

    spec: ProcessSpec
    process: ForkProcess | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = field(default=0.0)


class Supervisor:
    """The children of this process. `in_child` runs first in each; `on_death` here after each death."""

    def __init__(
        self,
        children: Sequence[ProcessSpec],
        *,
        in_child: Callable[[], None],
        on_death: Callable[[str], None],
    ) -> None:
        self._slots = [_Slot(child) for child in children]
        self._in_child, self._on_death = in_child, on_death
        self._parent_pipe, self._lifeline = os.pipe()
        self._fork = multiprocessing.get_context("fork")

    def run(
        self, stop: threading.Event, tick: Callable[[], None], on_stop: Callable[[], None] = lambda: None
    ) -> None:
        """Keep all children alive until `stop` is set, calling `tick`; then `on_stop`, and end them."""
        try:
            while not stop.is_set():
                self._spawn_missing()
                wait([seat.process.sentinel for seat in self._slots if seat.process], timeout=TICK)
                self._reap()
                tick()
            on_stop()
        finally:
            self._end()

    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        return {s.spec.name: s.process.pid for s in self._slots if s.process and s.process.pid}

    def _spawn_missing(self) -> None:
        for seat in self._slots:
            if seat.process is None and time.monotonic() >= seat.due:
                seat.process = self._fork.Process(
                    target=self._child_main, args=(seat.spec,), name=seat.spec.name
                )
                seat.process.start()
                seat.started = time.monotonic()
                log_event(log, "child_started", child=seat.spec.name, pid=seat.process.pid)

    def _reap(self) -> None:
        for seat in self._slots:
            if seat.process and not seat.process.is_alive():
                log_event(
                    log,
                    "child_died",
                    level=logging.WARNING,
                    child=seat.spec.name,
                    code=seat.process.exitcode,
                )
                seat.process.close()
                seat.process = None
                lived = time.monotonic() - seat.started
                seat.pause = min(max(seat.pause * 2, 0.2), MAX_RESTART_PAUSE) if lived < CRASH_WINDOW else 0.0
                seat.due = time.monotonic() + seat.pause
                self._on_death(seat.spec.name)

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._all_gone(STOP_DEADLINE):
            # rq's second signal: cut the job that runs.
            self._signal(signal.SIGTERM)
            if not self._all_gone(KILL_GRACE):
                self._signal(signal.SIGKILL)
                self._all_gone(KILL_GRACE)
        os.close(self._lifeline)
        os.close(self._parent_pipe)

    def _signal(self, number: signal.Signals) -> None:
        for seat in self._slots:
            if seat.process and seat.process.is_alive() and seat.process.pid:
                os.kill(seat.process.pid, number)

    def _all_gone(self, deadline: float) -> bool:
        until = time.monotonic() + deadline
        for seat in self._slots:
            if seat.process:
                seat.process.join(max(0.0, until - time.monotonic()))
        return not any(seat.process and seat.process.is_alive() for seat in self._slots)

    def _child_main(self, child: ProcessSpec) -> None:
        """A child's life, from the fork to its exit."""
        stop = threading.Event()
        os.setpgrp()  # Ctrl-C is the parent's business
        os.close(self._lifeline)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        self._in_child()
        threading.Thread(target=self._end_with_parent, daemon=True).start()
        try:
            child.run(stop)
        except (GastownError, RedisError) as error:
            log_event(log, "child_failed", level=logging.ERROR, child=child.name, detail=str(error))
            sys.exit(1)

    def _end_with_parent(self) -> None:
        """When the parent has died, end this child as the parent would have: ask, ask again, kill."""
        os.read(self._parent_pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_DEADLINE)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(KILL_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)
