"""Named points at which tests make a process die. Off unless asked for.

`GASTOWN_FAIL_AT=<point>` kills every process that reaches the point, `GASTOWN_FAIL_AT=<point>@<file>` only
the first one, which leaves the file behind.
"""

import os
import signal
from collections.abc import Mapping

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
"""In the order in which a request passes them."""


def failpoint(point: str, environ: Mapping[str, str] = os.environ) -> None:
    """Die here by SIGKILL if `GASTOWN_FAIL_AT` names this point."""
    wanted, _, file = environ.get("GASTOWN_FAIL_AT", "").partition("@")
    if wanted != point:
        return
    try:
        if file:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return  # another process has died here
    os.kill(os.getpid(), signal.SIGKILL)
