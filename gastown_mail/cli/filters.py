"""What the lists can be narrowed to: an agent, a time, a number."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import click

from gastown_mail.cli.completion import complete_agents
from gastown_mail.contracts.times import parse_duration, parse_time
from gastown_mail.daemon.town import Town

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


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
