"""How something is shown to people and programs, and how a command waits."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from gastown_mail.contracts.go_formats import ZERO_TIME, format_duration, parse_time

GAP = "  "
MIN_LAST_COLUMN = 30
"""Columns that a text for people must have beside the others; with fewer it stands below them."""

LEAST_WIDTH = 40
"""Columns that a terminal is taken to have at least."""


def print_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None) -> str:
    """Rows under headings, in columns; where a line would pass `width`, its last cell goes on below.

    Without a width it is that of the terminal; what goes elsewhere has one line a row, whole.
    """
    limit = width or screen_width()
    cells = [[strip_controls(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings) - 1)]
    return "\n".join(_row(row, widths, limit) for row in cells)


def _row(cells: Sequence[str], widths: Sequence[int], limit: int | None) -> str:
    head = "".join(cell.ljust(size) + GAP for cell, size in zip(cells, widths, strict=False))
    if limit is None or len(head + cells[-1]) <= limit:
        return (head + cells[-1]).rstrip()
    if limit - len(head) >= MIN_LAST_COLUMN:
        return wrap(head + cells[-1], len(head), limit)
    below = textwrap.indent(wrap(cells[-1], 0, limit - 2 * len(GAP)), 2 * GAP)
    return "\n".join(part for part in (wrap(head.rstrip(), len(GAP), limit), below.rstrip()) if part)


def wrap(line: str, indent: int, width: int | None = None) -> str:
    """The line in as many as `width` asks for (default: the terminal's), the later ones indented."""
    limit = width or screen_width()
    if limit is None or len(line) <= limit:
        return line
    return textwrap.fill(line, limit, subsequent_indent=" " * indent, break_on_hyphens=False)


def screen_width() -> int | None:
    """The columns of the terminal that stdout is, None when it is none."""
    return max(LEAST_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def strip_controls(cell: object) -> str:
    """The text of anything, in one line that cannot steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(cell))


def format_age(written: str) -> str:
    """How long ago a time of ours (RFC 3339) was, for people; "" for none."""
    moment = parse_time(written) if written else ZERO_TIME
    return (
        ""
        if moment == ZERO_TIME
        else f"{format_duration(max(0, round(time.time() - moment.timestamp())))} ago"
    )


SAY_AFTER = 1.0
"""Seconds of silence; what comes sooner needs no words."""

LOOK_PAUSE = 0.05

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, seconds: float) -> T | None:
    """The condition's first true value, None when none came within `seconds`.

    `what` is said on stderr, so that nobody sits before a silent command.
    """
    began, said = time.monotonic(), False
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            return None
        if waited > SAY_AFTER and not said:
            said = True
            announce_wait(what, seconds)
        time.sleep(LOOK_PAUSE)
    return value


def announce_wait(what: str, seconds: float) -> None:
    """Tell on stderr what is waited for, and how long at most."""
    click.echo(f"waiting at most {seconds:.0f} s for {what}", err=True)
