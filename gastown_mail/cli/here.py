"""What the commands share: which town is meant, its Redis, and how something is shown."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from gastown_mail.contracts.settings import Settings, find_town, load_settings
from gastown_mail.daemon.service import redis_url
from gastown_mail.daemon.town import Town
from gastown_mail.plumbing.connections import redis_errors

F = TypeVar("F", bound=Callable[..., Any])


def town_option(command: F) -> F:
    """`--town DIR` behind the command as well as before it."""
    return click.option("--town", metavar="DIR", help="The town's folder.")(command)


def json_option(command: F) -> F:
    """`--json`: one document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def root_of(town: str | None) -> Path:
    """The folder of the town that is meant; raises SettingsError."""
    said = town or click.get_current_context().find_root().obj
    return find_town(Path.cwd(), {**os.environ, **({"GASTOWN_TOWN": said} if said else {})})


def settings_of(town: str | None) -> Settings:
    """The settings of the town that is meant; raises SettingsError."""
    return load_settings(root_of(town), environ=os.environ)


@contextmanager
def open_town(town: str | None) -> Iterator[Town]:
    """The town that is meant, on its Redis; raises SettingsError and RedisUnavailable."""
    settings = settings_of(town)
    url = redis_url(settings)
    with redis_errors(url):
        yield Town.open(settings, url)


def show(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], width: int = 80) -> str:
    """Rows under headings, in columns; the last column is cut where the line would pass `width`."""
    cells = [[_plain(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip()[:width].rstrip() for line in lines)


def _plain(cell: object) -> str:
    return "".join(character if character.isprintable() else " " for character in str(cell))
