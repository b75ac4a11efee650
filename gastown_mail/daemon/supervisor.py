"""Child processes that are started, watched, restarted and stopped together; forked, so they share memory.

Children exit when the parent dies: each watches a pipe that only the parent keeps open.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import GastownError
from gastown_mail.plumbing.log import log_event

_TICK = 0.25
"""Seconds between two checks of the parent's stop flag."""

STOP_DEADLINE = 10.0
"""Seconds a child has to finish its work; what is cut off then is resumed after the next start."""

KILL_GRACE = 2.0
"""Seconds between the signals to a child that does not stop: SIGTERM again, then SIGKILL."""

_CRASH_WINDOW, _MAX_RESTART_PAUSE = 2.0, 10.0
"""A child that lived less than the first is restarted after a pause, which doubles up to the second."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessSpec:
    """A child process: its name, and the function it runs until the event is set."""

    name: str
    run: Callable[[threading.Event], None]


@dataclass
class _Slot:
    """One child: its process, when that started, and when it may be started again."""

    spec: ProcessSpec
    process: ForkProcess | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = 0.0

    def start(self, process: ForkProcess) -> None:
        """Start this process in the slot."""
        process.name = self.spec.name
        process.start()
        self.process, self.started = process, time.monotonic()
        log_event(log, "child_started", child=self.spec.name, pid=process.pid)

    def reap(self) -> None:
        """Record the process's death; one that died young is started again after a pause."""
        code = self.process.exitcode if self.process else None
        log_event(log, "child_died", level=logging.WARNING, child=self.spec.name, code=code)
        if self.process:
            self.process.close()
        self.process = None
        crashed = time.monotonic() - self.started < _CRASH_WINDOW
        self.pause = min(max(self.pause * 2, 0.2), _MAX_RESTART_PAUSE) if crashed else 0.0
        self.due = time.monotonic() + self.pause


class Supervisor:
    """The children of this process. `in_child` runs first in each, `on_death` here after each death."""

    def __init__(
        self,
        children: Sequence[ProcessSpec],
        *,
        in_child: Callable[[], None],
        on_death: Callable[[str], None],
    ) -> None:
        self._slots = [_Slot(spec) for spec in children]
        self._in_child, self._on_death = in_child, on_death
        self._parent_pipe, self._lifeline = os.pipe()
        self._fork = multiprocessing.get_context("fork")

    def run(
        self, stop: threading.Event, tick: Callable[[], None], on_stop: Callable[[], None] = lambda: None
    ) -> None:
        """Keep all children alive until `stop` is set, calling `tick`; then call `on_stop` and end them."""
        try:
            while not stop.is_set():
                for slot in self._slots:
                    if slot.process is None and time.monotonic() >= slot.due:
                        slot.start(self._fork.Process(target=self._child_main, args=(slot.spec,)))
                wait([slot.process.sentinel for slot in self._slots if slot.process], timeout=_TICK)
                for slot in self._slots:
                    if slot.process and not slot.process.is_alive():
                        slot.reap()
                        self._on_death(slot.spec.name)
                tick()
            on_stop()
        finally:
            self._end()

    def pids(self) -> dict[str, int]:
        """The pids of the live children, by name."""
        return {s.spec.name: s.process.pid for s in self._slots if s.process and s.process.pid}

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._wait_ended(STOP_DEADLINE):
            # rq's second signal: cut off the running job
            self._signal(signal.SIGTERM)
            if not self._wait_ended(KILL_GRACE):
                self._signal(signal.SIGKILL)
                self._wait_ended(KILL_GRACE)
        os.close(self._lifeline)
        os.close(self._parent_pipe)

    def _signal(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process and slot.process.is_alive() and slot.process.pid:
                os.kill(slot.process.pid, number)

    def _wait_ended(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        for slot in self._slots:
            if slot.process:
                slot.process.join(max(0.0, until - time.monotonic()))
        return not any(slot.process and slot.process.is_alive() for slot in self._slots)

    def _child_main(self, spec: ProcessSpec) -> None:
        """A child's whole life, from the fork to its exit."""
        stop = threading.Event()

        def end_with_parent() -> None:
            # as the parent would: ask, ask again, kill
            os.read(self._parent_pipe, 1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(STOP_DEADLINE)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(KILL_GRACE)
            os.kill(os.getpid(), signal.SIGKILL)

        os.setpgrp()  # the parent handles Ctrl-C
        os.close(self._lifeline)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        self._in_child()
        threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            spec.run(stop)
        except (GastownError, RedisError) as error:
            log_event(log, "child_failed", level=logging.ERROR, child=spec.name, detail=str(error))
            sys.exit(1)
