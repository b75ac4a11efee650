"""What the commands share: their options, which town is meant, and what the shell completes."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from redis.exceptions import ResponseError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable
from gastown_mail.contracts.go_formats import parse_duration, parse_time
from gastown_mail.contracts.settings import Settings, find_town, load_settings
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.connections import redact, redis_errors
from gastown_mail.town.town import Town

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

EMBEDDED_HINT = "it is the town's own server: gastown-mail up or start starts it"


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


def complete_agents(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The agents' addresses that begin like this; none where the town cannot be read."""
    try:
        return [address for address in _known(context) if address.startswith(incomplete)]
    except Exception:
        return []


def complete_words(*known: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What completes to those of `known` that begin like what is there."""
    return lambda _, __, incomplete: [str(word) for word in known if word.startswith(incomplete)]


def _known(context: click.Context) -> list[str]:
    # only when somebody completes: `send` pays for no more than it needs
    from gastown_mail.contracts.settings import find_town, load_settings
    from gastown_mail.town.roster import load_roster

    said = context.params.get("town") or context.find_root().params.get("town")
    environ = {**os.environ, **({"GASTOWN_TOWN": said} if said else {})}
    return list(load_roster(load_settings(find_town(Path.cwd(), environ), environ=environ)).agents)


def parse_since(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Seconds since the epoch of a duration ago (`10m`) or of an RFC 3339 time; else it is a usage error."""
    if text is None:
        return None
    with suppress(ValueError):
        return time.time() - parse_duration(text)
    with suppress(ValueError):
        return parse_time(text).timestamp()
    raise click.BadParameter(
        f"{text!r} is neither a duration ago such as 10m nor a time such as 2025-12-20T10:12:21Z"
    )


def agent_option(command: F) -> F:
    """`--agent A`: what concerns this agent."""
    return click.option("--agent", metavar="A", shell_complete=complete_agents, help="Only of this agent.")(
        command
    )


def since_option(command: F) -> F:
    """`--since WHEN`: what is younger than that."""
    text = "Only what came since then: a duration ago (10m), or a time."
    return click.option("--since", metavar="WHEN", callback=parse_since, help=text)(command)


def count_option(default: int | None, text: str) -> Callable[[F], F]:
    """`-n N`: how many at most."""
    return click.option(
        "-n",
        "count",
        type=click.IntRange(min=0),
        default=default,
        show_default=default is not None,
        help=text,
    )


def address_of(town: Town, spelling: str | None) -> str | None:
    """The canonical address of whom a filter names, None when it names nobody. Raises AddressError."""
    return town.roster().resolve(spelling).address if spelling else None


def agent_of(record: Mapping[str, str]) -> str:
    """Whose session a request means: the agent, or as it was spelled when there is none; "" for garbage."""
    return record.get("agent") or record.get("to", "")


def matches_agent(record: Mapping[str, str], address: str | None) -> bool:
    """Is it a request to this agent? To None, every one is."""
    return address in (None, agent_of(record))


def last_n(records: Sequence[R], count: int) -> Sequence[R]:
    """The last `count` of them; that there are more is said on stderr."""
    if len(records) > count:
        click.echo(f"the newest {count} of {len(records)}; -n {len(records)} shows all", err=True)
    return records[max(0, len(records) - count) :]
