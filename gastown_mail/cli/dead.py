"""`dead`: the dead letters, and what can be done with them."""

from collections.abc import Callable
from typing import Any

import click

from gastown_mail.cli.options import (
    address_of,
    agent_of,
    agent_option,
    count_option,
    json_option,
    last_n,
    matches_agent,
    open_town,
    since_option,
    town_option,
)
from gastown_mail.cli.output import format_age, print_json, table
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.lifecycle import DEAD_STATUSES
from gastown_mail.mail.requests import DeadLetters

FAILED = 1


@click.group(invoke_without_command=True)
@town_option
@json_option
@agent_option
@click.option(
    "--status", type=click.Choice(sorted(status.value for status in DEAD_STATUSES)), help="Only those."
)
@since_option
@count_option(50, "How many of the newest to show.")
@click.pass_context
def dead(
    context: click.Context, town: str | None, as_json: bool, agent: str | None, status: str | None,
    since: float | None, count: int,
) -> None:  # fmt: skip
    """List the dead letters with their reasons; `revive ID...` or `drop ID...` some of them."""
    context.obj = (town or context.obj, as_json)
    if context.invoked_subcommand is None:
        _list(town, as_json, agent, status, since or 0.0, count)


def _list(
    town: str | None, as_json: bool, agent: str | None, status: str | None, since: float, count: int
) -> None:
    with open_town(town) as opened:
        address = address_of(opened, agent)
        ids = DeadLetters(opened.redis, opened.keys).ids(since)
        records = [{"id": i, **record} for i, record in zip(ids, opened.requests.records(ids), strict=True)]
    found = [r for r in records if matches_agent(r, address) and status in (None, r.get("status"))]
    shown = last_n(found, count)
    if as_json:
        print_json(shown)
    elif shown:
        click.echo(table(("ID", "STATUS", "ACTION", "AGENT", "SINCE, AND WHY"), [_row(r) for r in shown]))
    else:
        click.echo("no dead letters" if not records else "no such dead letters")


def _row(record: dict[str, str]) -> tuple[str, ...]:
    why = f"{format_age(record.get('finished_at', ''))}: {record.get('detail', '')}"
    return record["id"], record.get("status", "-"), record.get("action") or "-", agent_of(record) or "-", why


@dead.command()
@town_option
@json_option
@click.argument("request_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def revive(context: click.Context, town: str | None, as_json: bool, request_ids: tuple[str, ...]) -> int:
    """Put dead letters back into the inbox, as if asked for now."""
    return _each(context, town, as_json, request_ids, DeadLetters.revive, "back in the inbox")


@dead.command()
@town_option
@json_option
@click.argument("request_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def drop(context: click.Context, town: str | None, as_json: bool, request_ids: tuple[str, ...]) -> int:
    """Take dead letters off the list."""
    return _each(context, town, as_json, request_ids, DeadLetters.drop, "dropped")


def _each(
    context: click.Context, town: str | None, as_json: bool, ids: tuple[str, ...],
    act: Callable[[DeadLetters, str], None], done: str,
) -> int:  # fmt: skip
    """Do it to each of them; one that cannot be found keeps no other back, and makes the exit code 1."""
    said, also_json = context.obj
    with open_town(town or said) as opened:
        letters = DeadLetters(opened.redis, opened.keys)
        outcomes = [_apply(act, letters, request_id, done) for request_id in ids]
    if as_json or also_json:
        print_json(outcomes)
    else:
        for one in outcomes:
            click.echo(f"{one['id']}: {one['detail']}", err=not one["done"])
    return 0 if all(one["done"] for one in outcomes) else FAILED


def _apply(
    act: Callable[[DeadLetters, str], None], letters: DeadLetters, request_id: str, done: str
) -> dict[str, Any]:
    try:
        act(letters, request_id)
    except GastownError as error:
        return {"id": request_id, "done": False, "detail": str(error)}
    return {"id": request_id, "done": True, "detail": done}
