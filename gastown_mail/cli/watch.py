"""`status --watch`: the same again and again, in place on a terminal, one after another elsewhere."""

import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gastown_mail.cli.glance import COLOURS, format_report
from gastown_mail.cli.report import Report
from gastown_mail.cli.rows import format_clock

TERMINATED = 128 + signal.SIGTERM


def watch_status(look: Callable[[], Report], interval: float) -> NoReturn:
    """Show what `look` sees, with `interval` seconds in between, until Ctrl-C (KeyboardInterrupt)."""
    # Through SystemExit, so that the terminal is left as it was.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    console = Console(highlight=False)
    if not console.is_terminal:
        while True:
            print(f"{as_text(look())}\n", flush=True)  # noqa: T201
            time.sleep(interval)
    with Live(as_text(look()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(as_text(look()), refresh=True)


def as_text(report: Report) -> Text:
    """The report's lines, the verdict in its colour; rich leaves that out where there are no colours."""
    first, *rest = format_report(report)
    style, asked = f"bold {COLOURS[report.verdict]}", f"  as of {format_clock(report.asked)}; Ctrl-C ends"
    return Text.assemble((first, style), "\n" + "\n".join((asked, *rest)))
