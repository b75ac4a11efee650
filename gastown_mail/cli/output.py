"""How commands print for people and programs, and how they wait."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from gastown_mail.contracts.go_formats import ZERO_TIME, format_elapsed, parse_time

_GAP = "  "
_MIN_LAST_COLUMN = 30
"""Columns that the last cell needs beside the others; with fewer it goes below them."""

_MIN_WIDTH = 40
"""The least number of columns that a terminal is assumed to have."""

_ANNOUNCE_AFTER = 1.0
"""Seconds of waiting after which `wait_for` says what it waits for."""

_POLL = 0.05

_T = TypeVar("_T")


def print_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None, *, cut: bool = False
) -> str:
    """Format rows as columns under headings; the last cell of a row is wrapped to `width`, or `cut` to it.

    The default width is the terminal's. Without a terminal nothing is wrapped or cut.
    """
    limit = width or _screen_width()
    cells = [[strip_controls(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings) - 1)]
    return "\n".join(_row(row, widths, limit, cut) for row in cells)


def _row(cells: Sequence[str], widths: Sequence[int], limit: int | None, cut: bool) -> str:
    head = "".join(cell.ljust(size) + _GAP for cell, size in zip(cells, widths, strict=False))
    if limit is None or len(head + cells[-1]) <= limit:
        return (head + cells[-1]).rstrip()
    fits_beside = limit - len(head) >= _MIN_LAST_COLUMN
    if cut:
        room = limit - (len(head) if fits_beside else 2 * len(_GAP))
        cells = [*cells[:-1], _cut(cells[-1], room)]
    if fits_beside:
        return wrap(head + cells[-1], len(head), limit)
    below = textwrap.indent(wrap(cells[-1], 0, limit - 2 * len(_GAP)), 2 * _GAP)
    return "\n".join(part for part in (wrap(head.rstrip(), len(_GAP), limit), below.rstrip()) if part)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def wrap(line: str, indent: int, width: int | None = None) -> str:
    """Wrap a line to `width` (default: the terminal's) and indent its continuation."""
    limit = width or _screen_width()
    if limit is None or len(line) <= limit:
        return line
    return textwrap.fill(line, limit, subsequent_indent=" " * indent, break_on_hyphens=False)


def _screen_width() -> int | None:
    """The width of the terminal, None if stdout is not a terminal."""
    return max(_MIN_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def strip_controls(cell: object) -> str:
    """The text of `cell` on one line, without characters that control a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(cell))


def format_age(timestamp: str) -> str:
    """How long ago an RFC 3339 time was, for people; "" for none."""
    time_then = parse_time(timestamp) if timestamp else ZERO_TIME
    if time_then == ZERO_TIME:
        return ""
    return f"{format_elapsed(time.time() - time_then.timestamp())} ago"


def wait_for(condition: Callable[[], _T | None], what: str, seconds: float) -> _T | None:
    """Return the condition's first true value, None after `seconds`; `what` is announced on stderr."""
    began, announced = time.monotonic(), False
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            return None
        if waited > _ANNOUNCE_AFTER and not announced:
            announced = True
            click.echo(f"waiting at most {seconds:.0f} s for {what}", err=True)
        time.sleep(_POLL)
    return value
