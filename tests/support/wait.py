"""Waiting in tests: for a condition, with a deadline, never for a fixed time."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""By how much every wait is longer than usual: on a machine that is slow or busy."""

DEADLINE = 60.0
"""Seconds that anything may take on a busy machine."""

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, deadline: float = 30.0, step: float = 0.02) -> T:
    """Return the condition's first true value; fail with its last value after `deadline` seconds."""
    until = time.monotonic() + deadline * PATIENCE
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline} s: {condition} last gave {value!r}")
        time.sleep(step)
    return value
