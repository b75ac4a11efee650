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

CUT_DEADLINE = 2.0
SHORT_LIFE, LONGEST_PAUSE = 2.0, 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Child:
    """A process of the pool: its name, and what it runs until the event is set."""

    name: str
    run: Callable[[threading.Event], None]


@dataclass
class _Seat:
    """Where a child sits: the process, since when, and when it may be started again."""

    child: Child
    process: ForkProcess | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = field(default=0.0)


class Pool:
    """The children of this process. `in_child` runs first in each; `on_death` here after each death."""

    def __init__(
        self, children: Sequence[Child], *, in_child: Callable[[], None], on_death: Callable[[str], None]
    ) -> None:
        self._seats = [_Seat(child) for child in children]
        self._in_child, self._on_death = in_child, on_death
        self._parent_lives, self._lifeline = os.pipe()
        self._fork = multiprocessing.get_context("fork")

    def run(
        self, stop: threading.Event, tick: Callable[[], None], on_stop: Callable[[], None] = lambda: None
    ) -> None:
        """Keep all children alive until `stop` is set, calling `tick`; then `on_stop`, and end them."""
        try:
            while not stop.is_set():
                self._fill_seats()
                wait([seat.process.sentinel for seat in self._seats if seat.process], timeout=TICK)
                self._bury()
                tick()
            on_stop()
        finally:
            self._end()

    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        return {s.child.name: s.process.pid for s in self._seats if s.process and s.process.pid}

    def _fill_seats(self) -> None:
        for seat in self._seats:
            if seat.process is None and time.monotonic() >= seat.due:
                seat.process = self._fork.Process(target=self._live, args=(seat.child,), name=seat.child.name)
                seat.process.start()
                seat.started = time.monotonic()
                log_event(log, "child_started", child=seat.child.name, pid=seat.process.pid)

    def _bury(self) -> None:
        for seat in self._seats:
            if seat.process and not seat.process.is_alive():
                log_event(
                    log,
                    "child_died",
                    level=logging.WARNING,
                    child=seat.child.name,
                    code=seat.process.exitcode,
                )
                seat.process.close()
                seat.process = None
                lived = time.monotonic() - seat.started
                seat.pause = min(max(seat.pause * 2, 0.2), LONGEST_PAUSE) if lived < SHORT_LIFE else 0.0
                seat.due = time.monotonic() + seat.pause
                self._on_death(seat.child.name)

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._all_gone(STOP_DEADLINE):
            # rq's second signal: cut the job that runs.
            self._signal(signal.SIGTERM)
            if not self._all_gone(CUT_DEADLINE):
                self._signal(signal.SIGKILL)
                self._all_gone(CUT_DEADLINE)
        os.close(self._lifeline)
        os.close(self._parent_lives)

    def _signal(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.process and seat.process.is_alive() and seat.process.pid:
                os.kill(seat.process.pid, number)

    def _all_gone(self, deadline: float) -> bool:
        until = time.monotonic() + deadline
        for seat in self._seats:
            if seat.process:
                seat.process.join(max(0.0, until - time.monotonic()))
        return not any(seat.process and seat.process.is_alive() for seat in self._seats)

    def _live(self, child: Child) -> None:
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
        os.read(self._parent_lives, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_DEADLINE)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(CUT_DEADLINE)
        os.kill(os.getpid(), signal.SIGKILL)
