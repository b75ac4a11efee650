"""`logs`: the daemon's log, across its rotations."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from gastown_mail.cli.options import count_option, load, town_option
from gastown_mail.cli.output import strip_controls, wrap
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.plumbing.log import LOG_FILES

FOLLOW_PAUSE = 0.2
FIRST_KEYS = ("time", "level", "logger", "event")


@click.command()
@town_option
@count_option(50, "How many of the newest lines to show first.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing new ones until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="JSON lines, as they stand in the file, on a terminal too."
)
def logs(town: str | None, count: int, follow: bool, as_json: bool) -> None:
    """Show the daemon's log: one event per line; JSON unless it is for a terminal."""
    path = load(town).log_file
    if not path.is_file():
        raise GastownError(f"there is no log at {path} yet; `gastown-mail up` or `start` writes it")
    for found in _lines(path, count, follow):
        line = found.rstrip("\n")
        click.echo(line if as_json or not sys.stdout.isatty() else wrap(_readable(line), 9))


def _lines(path: Path, count: int, follow: bool) -> Iterator[str]:
    stream = path.open(errors="replace")
    try:
        newest = deque(stream, maxlen=count)
        yield from _rotated_lines(path, count - len(newest))
        yield from newest
        while follow:
            yield from stream
            if _is_rotated(path, stream.fileno()):
                yield from stream  # what came between the two looks
                stream.close()
                stream = path.open(errors="replace")
            else:
                time.sleep(FOLLOW_PAUSE)
    finally:
        stream.close()


def _rotated_lines(path: Path, count: int) -> Iterator[str]:
    """The last lines before those of the file itself, out of what was rotated."""
    lines: deque[str] = deque(maxlen=max(0, count))
    for number in range(LOG_FILES - 1, 0, -1) if count > 0 else ():
        older = path.with_name(f"{path.name}.{number}")
        lines.extend(older.read_text(errors="replace").splitlines() if older.is_file() else ())
    yield from lines


def _is_rotated(path: Path, number: int) -> bool:
    return path.exists() and not os.path.samestat(path.stat(), os.fstat(number))


def _readable(line: str) -> str:
    """A JSON line of the log as one for people; any other line as it is."""
    try:
        said = json.loads(line)
        moment = parse_time(said["time"]).astimezone()
        more = " ".join(f"{name}={value}" for name, value in said.items() if name not in FIRST_KEYS)
        return strip_controls(f"{moment:%H:%M:%S} {said['level']:<7} {said['event']}  {more}").rstrip()
    except (ValueError, KeyError, TypeError):
        return strip_controls(line)
