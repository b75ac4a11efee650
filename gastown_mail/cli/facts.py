"""`events` and `logs`: what happened, one line per fact."""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from gastown_mail.cli.here import open_town, settings_of, town_option
from gastown_mail.contracts.errors import GastownError
from gastown_mail.daemon.town import Town
from gastown_mail.mail.events import Event, latest, newest, since

FOLLOW_PAUSE = 0.2
FIRST_FIELDS = ("event", "agent", "request")


def readable(event: Event) -> str:
    """An event as one line for people."""
    moment = datetime.fromtimestamp(event.epoch).astimezone().strftime("%H:%M:%S.%f")[:-3]
    rest = " ".join(_rest(name, value) for name, value in event.fields.items() if name not in FIRST_FIELDS)
    about = f"{event.fields.get('agent', ''):<24}"
    request = f"  [{event.fields['request']}]" if "request" in event.fields else ""
    line = f"{moment}  {event.fields.get('event', '?'):<12} {about} {rest}{request}"
    return "".join(character if character.isprintable() else " " for character in line).rstrip()


def as_document(event: Event) -> str:
    """An event as one line of JSON."""
    return json.dumps({"id": event.id, "epoch": event.epoch, **event.fields}, ensure_ascii=False)


def _rest(name: str, value: str) -> str:
    return value if name in {"detail", "action", "outcome"} else f"{name}={value}"


class Follower:
    """Shows what has been added to the events stream since the last look."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.place = newest(town.redis, town.keys)

    def new(self) -> list[Event]:
        """The events since the last call, oldest first."""
        events = since(self.town.redis, self.town.keys, self.place)
        if events:
            self.place = events[-1].id
        return events


@click.command()
@town_option
@click.option("-f", "--follow", is_flag=True, help="Go on showing new ones until Ctrl-C.")
@click.option("-n", "count", default=20, show_default=True, help="How many of the newest to show first.")
@click.option("--agent", help="Only those of this agent.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")
def events(town: str | None, follow: bool, count: int, agent: str | None, as_json: bool) -> None:
    """Show what happened, one line per fact."""
    line = as_document if as_json else readable
    with open_town(town) as opened:
        address = opened.roster().resolve(agent).address if agent else None
        for event in _events(opened, count, follow):
            if address in (None, event.fields.get("agent")):
                click.echo(line(event))


def _events(town: Town, count: int, follow: bool) -> Iterator[Event]:
    follower = Follower(town)
    yield from latest(town.redis, town.keys, count) if count else []
    while follow:
        yield from follower.new()
        time.sleep(FOLLOW_PAUSE)


@click.command()
@town_option
@click.option(
    "-n", "count", default=50, show_default=True, help="How many of the newest lines to show first."
)
@click.option("-f", "--follow", is_flag=True, help="Go on showing new ones until Ctrl-C.")
def logs(town: str | None, count: int, follow: bool) -> None:
    """Show the daemon's log."""
    path = settings_of(town).log_file
    if not path.is_file():
        raise GastownError(f"there is no log at {path} yet; `gastown-mail up` or `start` writes it")
    for line in _lines(path, count, follow):
        sys.stdout.write(line)
        sys.stdout.flush()


def _lines(path: Path, count: int, follow: bool) -> Iterator[str]:
    stream = path.open(errors="replace")
    with stream:
        yield from stream.readlines()[-count:] if count else []
        while follow:
            yield from stream.readlines()
            if _is_rotated(path, stream.fileno()):
                yield from _lines(path, 10**9, follow)
            time.sleep(FOLLOW_PAUSE)


def _is_rotated(path: Path, number: int) -> bool:
    return path.exists() and not os.path.samestat(path.stat(), os.fstat(number))
