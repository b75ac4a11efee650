"""`events`: what happened, one line per fact."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import click
from redis.exceptions import RedisError

from gastown_mail.cli.options import (
    address_of,
    agent_option,
    count_option,
    open_town,
    since_option,
    town_option,
)
from gastown_mail.cli.output import strip_controls, wrap
from gastown_mail.mail.events import Event, iter_newest_first, last_id, read_after, read_new
from gastown_mail.town.town import Town

WAIT = 2.0
"""Seconds that one look for new events waits at most."""

PAUSE_AFTER_TROUBLE = 0.5
SHOWN = 20
FIRST_FIELDS = ("event", "agent", "request")


def format_event(event: Event) -> str:
    """An event as one line for people."""
    rest = " ".join(_rest(name, value) for name, value in event.fields.items() if name not in FIRST_FIELDS)
    about = f"{event.fields.get('agent', ''):<24}"
    request = f"  [{event.fields['request']}]" if "request" in event.fields else ""
    return strip_controls(
        f"{_time(event)}  {event.fields.get('event', '?'):<12} {about} {rest}{request}"
    ).rstrip()


def to_json(event: Event) -> dict[str, object]:
    """An event as plain data."""
    return {"id": event.id, "epoch": event.epoch, **event.fields}


def _time(event: Event) -> str:
    moment = datetime.fromtimestamp(event.epoch).astimezone()
    day = "" if moment.date() == datetime.now().astimezone().date() else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M:%S.%f}"[:-3]


def _rest(name: str, value: str) -> str:
    return value if name in {"detail", "action", "outcome"} else f"{name}={value}"


class EventFollower:
    """Shows what has been added to the events stream since the last look."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.place = last_id(town.redis, town.keys)

    def new(self) -> list[Event]:
        """The events since the last call, oldest first."""
        return self._passed(read_after(self.town.redis, self.town.keys, self.place))

    def wait(self) -> list[Event]:
        """The same, waiting at most `WAIT` for the first; an outage of Redis is said and waited out."""
        try:
            return self._passed(read_new(self.town.redis, self.town.keys, self.place, WAIT))
        except RedisError as error:
            click.echo(f"gastown-mail: Redis does not answer ({error}); waiting for it", err=True)
        while not self._answers():
            time.sleep(PAUSE_AFTER_TROUBLE)
        click.echo("gastown-mail: Redis answers again", err=True)
        return []

    def _answers(self) -> bool:
        try:
            last_id(self.town.redis, self.town.keys)
        except RedisError:
            return False
        return True

    def _passed(self, events: list[Event]) -> list[Event]:
        if events:
            self.place = events[-1].id
        return events


@click.command()
@town_option
@click.option("-f", "--follow", is_flag=True, help="Go on showing new ones until Ctrl-C.")
@count_option(None, f"How many of the newest to show first; {SHOWN}, or with --since all.")
@agent_option
@click.option("--event", "kind", metavar="E", help="Only facts of this kind, such as started.")
@since_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")
def events(
    town: str | None, follow: bool, count: int | None, agent: str | None, kind: str | None,
    since: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what happened, one line per fact."""
    with open_town(town, blocking=WAIT) as opened:
        address = address_of(opened, agent)
        follower = EventFollower(opened)
        past = iter_newest_first(opened.redis, opened.keys, since=since or 0.0, until=follower.place)
        found = (event for event in past if _is_meant(event, address, kind))
        first = list(islice(found, SHOWN if count is None and since is None else count))
        for event in _follow(first[::-1], follower if follow else None):
            if _is_meant(event, address, kind):
                line = json.dumps(to_json(event), ensure_ascii=False) if as_json else format_event(event)
                click.echo(line if as_json else wrap(line, 14))


def _is_meant(event: Event, address: str | None, kind: str | None) -> bool:
    return address in (None, event.fields.get("agent")) and kind in (None, event.fields.get("event"))


def _follow(first: list[Event], follower: EventFollower | None) -> Iterator[Event]:
    yield from first
    while follower:
        yield from follower.wait()
