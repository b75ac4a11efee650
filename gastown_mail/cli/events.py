"""`events`, `logs`: what happened, from the events in Redis and from the daemon's log."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path

import click
from redis.exceptions import RedisError

from gastown_mail.cli.options import (
    address_of,
    agent_option,
    count_option,
    load,
    open_town,
    since_option,
    town_option,
)
from gastown_mail.cli.output import strip_controls, wrap
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.mail.events import Event, iter_newest_first, last_id, read_after, read_new
from gastown_mail.plumbing.log import LOG_FILES
from gastown_mail.town.town import Town

_BLOCK = 2.0
"""Seconds that one read waits for new events."""

_RETRY_PAUSE = 0.5
_LOG_POLL = 0.2
_SHOWN = 20


def format_event(event: Event) -> str:
    """An event as one line for people."""
    fields = dict(event.fields)
    name, agent, request = fields.pop("event", "?"), fields.pop("agent", ""), fields.pop("request", "")
    rest = " ".join(
        value if key in {"detail", "action", "outcome"} else f"{key}={value}" for key, value in fields.items()
    )
    then = datetime.fromtimestamp(event.epoch).astimezone()
    day = "" if then.date() == datetime.now().astimezone().date() else f"{then:%Y-%m-%d} "
    clock = f"{then:%H:%M:%S.%f}"[:-3]
    line = f"{day}{clock}  {name:<12} {agent:<24} {rest}" + (f"  [{request}]" if request else "")
    return strip_controls(line).rstrip()


def format_events(events: Iterable[Event]) -> Iterator[str]:
    """Events (oldest first) as lines for people; the same one again and again is one line."""
    for _, group in groupby(events, key=lambda event: event.fields):
        first, *more = group
        if not more:
            yield format_event(first)
        else:
            since = datetime.fromtimestamp(first.epoch).astimezone()
            yield f"{format_event(more[-1])}  ({len(more) + 1} times since {since:%H:%M:%S})"


def event_document(event: Event) -> dict[str, object]:
    """An event as it is printed with `--json`."""
    return {"id": event.id, "epoch": event.epoch, **event.fields}


class EventFollower:
    """Reads the events that were added since the last call."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.last_id = last_id(town.redis, town.keys)

    def read(self) -> list[Event]:
        """The new events, oldest first."""
        return self._advance(read_after(self.town.redis, self.town.keys, self.last_id))

    def wait(self) -> list[Event]:
        """The new events, after at most `_BLOCK` seconds; if Redis does not answer, waits until it does."""
        try:
            return self._advance(read_new(self.town.redis, self.town.keys, self.last_id, _BLOCK))
        except RedisError as error:
            click.echo(f"gastown-mail: Redis does not answer ({error}); waiting for it", err=True)
        while True:
            try:
                last_id(self.town.redis, self.town.keys)
                break
            except RedisError:
                time.sleep(_RETRY_PAUSE)
        click.echo("gastown-mail: Redis answers again", err=True)
        return []

    def _advance(self, events: list[Event]) -> list[Event]:
        if events:
            self.last_id = events[-1].id
        return events


@click.command()
@town_option
@click.option("-f", "--follow", is_flag=True, help="Keep showing new events until Ctrl-C.")
@count_option(None, f"Show only the newest N; default: {_SHOWN}, or all with --since.")
@agent_option
@click.option("--event", "kind", metavar="E", help="Show only this event, such as started.")
@since_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
def events(
    follow: bool, count: int | None, agent: str | None, kind: str | None, since: float | None, as_json: bool
) -> None:
    """Show what happened, one event per line."""
    with open_town(blocking=_BLOCK) as town:
        address = address_of(town, agent)

        def matches(event: Event) -> bool:
            fields = event.fields
            return address in (None, fields.get("agent")) and kind in (None, fields.get("event"))

        def show(events: Sequence[Event]) -> None:
            documents = (json.dumps(event_document(event), ensure_ascii=False) for event in events)
            lines = (wrap(line, 14) for line in format_events(events))
            for line in documents if as_json else lines:
                click.echo(line)

        follower = EventFollower(town)
        past = iter_newest_first(town.redis, town.keys, since=since or 0.0, until=follower.last_id)
        newest = islice(filter(matches, past), _SHOWN if count is None and since is None else count)
        show(list(newest)[::-1])
        while follow:
            show(list(filter(matches, follower.wait())))


@click.command()
@town_option
@count_option(50, "Show only the newest N lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON lines of the file on a terminal too.")
def logs(count: int, follow: bool, as_json: bool) -> None:
    """Show the daemon's log, one event per line; as JSON unless stdout is a terminal."""
    path = load().log_file
    if not path.is_file():
        raise GastownError(f"there is no log at {path} yet; `gastown-mail up` or `start` writes it")
    for line in _log_lines(path, count, follow):
        line = line.rstrip("\n")
        click.echo(line if as_json or not sys.stdout.isatty() else wrap(_format_log_line(line), 9))


def _log_lines(path: Path, count: int, follow: bool) -> Iterator[str]:
    stream = path.open(errors="replace")
    try:
        newest = deque(stream, maxlen=count)
        older: deque[str] = deque(maxlen=count - len(newest))
        for number in range(LOG_FILES - 1, 0, -1):
            rotated = path.with_name(f"{path.name}.{number}")
            if older.maxlen and rotated.is_file():
                older.extend(rotated.read_text(errors="replace").splitlines())
        yield from older
        yield from newest
        while follow:
            yield from stream
            if path.exists() and not os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                yield from stream  # what was written before the file was rotated
                stream.close()
                stream = path.open(errors="replace")
            else:
                time.sleep(_LOG_POLL)
    finally:
        stream.close()


def _format_log_line(line: str) -> str:
    """A JSON line of the log as text for people; any other line unchanged."""
    try:
        entry = json.loads(line)
        then = parse_time(entry["time"]).astimezone()
        first = ("time", "level", "logger", "event")
        rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in first)
        return strip_controls(f"{then:%H:%M:%S} {entry['level']:<7} {entry['event']}  {rest}").rstrip()
    except (ValueError, KeyError, TypeError):
        return strip_controls(line)
