"""What the commands share: which town is meant, its Redis, and how something is shown."""

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from redis.exceptions import ResponseError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable
from gastown_mail.contracts.settings import Settings, find_town, load_settings
from gastown_mail.contracts.times import ZERO_TIME, format_duration, parse_time
from gastown_mail.daemon.service import redis_url
from gastown_mail.daemon.town import Town
from gastown_mail.plumbing.connections import redact, redis_errors

F = TypeVar("F", bound=Callable[..., Any])

EMBEDDED_HINT = "it is the town's own server: gastown-mail up or start starts it"
GAP = "  "
MIN_LAST_COLUMN = 30
"""Columns that a text for people must have beside the others; with fewer it stands below them."""

LEAST_WIDTH = 40
"""Columns that a terminal is taken to have at least."""


def town_option(command: F) -> F:
    """`--town DIR` behind the command as well as before it."""
    return click.option("--town", metavar="DIR", help="The town's folder.")(command)


def json_option(command: F) -> F:
    """`--json`: one document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def find_root(town: str | None) -> Path:
    """The folder of the town that is meant; raises SettingsError."""
    said = town or click.get_current_context().find_root().obj
    return find_town(Path.cwd(), {**os.environ, **({"GASTOWN_TOWN": said} if said else {})})


def load(town: str | None) -> Settings:
    """The settings of the town that is meant; raises SettingsError."""
    return load_settings(find_root(town), environ=os.environ)


@contextmanager
def open_town(town: str | None, *, blocking: float = 0.0) -> Iterator[Town]:
    """The town that is meant, on its Redis; raises SettingsError and RedisUnavailable.

    `blocking` as in `plumbing.connections.connect`.
    """
    settings = load(town)
    url = redis_url(settings)
    try:
        with user_redis_errors(url):
            yield Town.open(settings, url, blocking=blocking)
    except RedisUnavailable as error:
        if settings.daemon.redis_url:
            raise
        raise RedisUnavailable(f"{error}; {EMBEDDED_HINT}") from error


@contextmanager
def user_redis_errors(url: str) -> Iterator[None]:
    """Whatever Redis throws inside the block as an error of ours: RedisUnavailable, or GastownError."""
    try:
        with redis_errors(url):
            yield
    except ResponseError as error:
        raise GastownError(
            f"Redis at {redact(url)} holds something of another type under a key of this town ({error}); "
            "see which one with redis-cli TYPE, and rename it"
        ) from error


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
