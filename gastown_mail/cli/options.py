"""Options that several commands share, the town they name, and shell completion.

`send` imports this module, so what `send` can do without is imported inside the functions.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gastown_mail.contracts.errors import RedisUnavailable
from gastown_mail.contracts.go_formats import parse_duration, parse_time
from gastown_mail.plumbing.connections import redis_errors

if TYPE_CHECKING:
    from gastown_mail.contracts.settings import Settings
    from gastown_mail.town.town import Town

_F = TypeVar("_F", bound=Callable[..., Any])
_R = TypeVar("_R")
_TOWN = "gastown_mail.town"
"""Where a click context keeps the folder that `--town` names."""

_EMBEDDED_HINT = "this is the town's own server: gastown-mail up or start starts it"


def town_option(command: _F) -> _F:
    """Add `--town DIR`, which `given_town` returns."""

    def keep(context: click.Context, _: click.Parameter, folder: str | None) -> None:
        if folder:
            context.meta[_TOWN] = folder

    text = "The town's folder; default: GASTOWN_TOWN or the nearest town above."
    return click.option("--town", metavar="DIR", expose_value=False, callback=keep, help=text)(command)


def given_town() -> str | None:
    """The folder that `--town` names, before or after the command; None without the option."""
    folder: str | None = click.get_current_context().meta.get(_TOWN)
    return folder


def find_root() -> Path:
    """The town's folder; raises SettingsError."""
    from gastown_mail.contracts.settings import find_town

    folder = given_town()
    return find_town(Path.cwd(), {**os.environ, **({"GASTOWN_TOWN": folder} if folder else {})})


def load() -> "Settings":
    """The town's settings; raises SettingsError."""
    from gastown_mail.contracts.settings import load_settings
    from gastown_mail.plumbing.locks import as_served

    return as_served(load_settings(find_root(), environ=os.environ))


@contextmanager
def open_town(*, blocking: float = 0.0) -> "Iterator[Town]":
    """The town, connected to its Redis; raises SettingsError and RedisUnavailable.

    `blocking` as in `plumbing.connections.connect`.
    """
    from gastown_mail.daemon.service import redis_url
    from gastown_mail.town.town import Town

    settings = load()
    url = redis_url(settings)
    try:
        with redis_errors(url):
            yield Town.open(settings, url, blocking=blocking)
    except RedisUnavailable as error:
        if settings.daemon.redis_url:
            raise
        raise RedisUnavailable(f"{error}; {_EMBEDDED_HINT}") from error


def complete_agents(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The agents' addresses that start with `incomplete`; none if the town cannot be read."""
    try:
        from gastown_mail.town.roster import load_roster

        with context.scope(cleanup=False):
            return [address for address in load_roster(load()).agents if address.startswith(incomplete)]
    except Exception:
        return []


def complete_words(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A completion that offers those of `words` that start with what is typed."""
    return lambda _, __, incomplete: [str(word) for word in words if word.startswith(incomplete)]


def agent_argument(command: _F) -> _F:
    """Add `AGENT`, passed as `address`: as the user spells it."""
    return click.argument("address", metavar="AGENT", shell_complete=complete_agents)(command)


def json_option(command: _F) -> _F:
    """Add `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def agent_option(command: _F) -> _F:
    """Add the filter `--agent A`."""
    text = "Show only this agent."
    return click.option("--agent", metavar="A", shell_complete=complete_agents, help=text)(command)


def since_option(command: _F) -> _F:
    """Add the filter `--since WHEN`, passed as seconds since the epoch."""

    def parse(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        with suppress(ValueError):
            return time.time() - parse_duration(text)
        with suppress(ValueError):
            return parse_time(text).timestamp()
        raise click.BadParameter(
            f"{text!r} is neither a duration such as 10m nor a time such as 2025-12-20T10:12:21Z"
        )

    text = "Show only entries newer than this: a duration (10m) or a time."
    return click.option("--since", metavar="WHEN", callback=parse, help=text)(command)


def count_option(default: int | None, text: str) -> Callable[[_F], _F]:
    """Make an option `-n N`, passed as `count`."""
    shown = default is not None
    kind = click.IntRange(min=0)
    return click.option("-n", "count", type=kind, default=default, show_default=shown, help=text)


def address_of(town: "Town", spelling: str | None) -> str | None:
    """The canonical address of the agent that a filter names, None without one. Raises AddressError."""
    return town.roster().pick(spelling).address if spelling else None


def agent_of(record: Mapping[str, str]) -> str:
    """The agent that a request is for, else `to` as it was written; "" for an invalid element."""
    return record.get("agent") or record.get("to", "")


def matches_agent(record: Mapping[str, str], address: str | None) -> bool:
    """True if the request is for this agent, or if `address` is None."""
    return address in (None, agent_of(record))


def last_n(records: Sequence[_R], count: int) -> Sequence[_R]:
    """The last `count` records; a note on stderr says when there are more."""
    if len(records) > count:
        click.echo(f"the newest {count} of {len(records)}; -n {len(records)} shows all", err=True)
    return records[max(0, len(records) - count) :]
