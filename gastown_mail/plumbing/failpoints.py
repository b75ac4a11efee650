"""Named points at which a process can be made to die, for tests of what happens then. Off unless asked for.

`GASTOWN_FAIL_AT=<point>` kills every process that reaches the point, `GASTOWN_FAIL_AT=<point>@<file>` only
the first one, which leaves the file behind.
"""

import os
import signal
from collections.abc import Mapping

VARIABLE = "GASTOWN_FAIL_AT"

FAILPOINTS = (
    "clerk-taken",
    "clerk-booked",
    "turn-taken",
    "intent-written",
    "handoff-written",
    "session-ended",
    "end-noted",
    "successor-announced",
    "session-started",
    "start-noted",
    "settled",
)
"""In the order in which one request passes them."""


def failpoint(point: str, environ: Mapping[str, str] = os.environ) -> None:
    """Die here by SIGKILL if that was asked for."""
    wanted, _, once = environ.get(VARIABLE, "").partition("@")
    if wanted == point and _first(once):
        os.kill(os.getpid(), signal.SIGKILL)


def _first(file: str) -> bool:
    if not file:
        return True
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
