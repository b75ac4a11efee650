"""A FIFO into which an agent's program first writes its name, to say that it runs."""

import os
import select
import time
from collections.abc import Iterable
from pathlib import Path

_CAPACITY = 1 << 16


class Bell:
    """The FIFO. One end stays open here, so no program waits for a listener."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, names: Iterable[str], deadline: float = 60.0) -> dict[str, float]:
        """Return when each of these first rang from now on (`time.monotonic`); ignore all others.

        Raises TimeoutError, with the names that are missing, after `deadline` seconds.
        """
        missing, rung = set(names), dict[str, float]()
        until = time.monotonic() + deadline
        while missing:
            ready, _, _ = select.select([self._end], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                some = ", ".join(sorted(missing)[:5])
                raise TimeoutError(f"within {deadline:g} s {len(missing)} programs did not start: {some}")
            now, heard = (
                time.monotonic(),
                missing.intersection(os.read(self._end, _CAPACITY).decode().split()),
            )
            rung |= dict.fromkeys(heard, now)
            missing -= heard
        return rung

    def clear(self) -> None:
        """Forget all that has rung so far."""
        while select.select([self._end], [], [], 0)[0]:
            os.read(self._end, _CAPACITY)

    def close(self) -> None:
        os.close(self._end)
