"""`dead`: the dead letters, and what can be done with one."""

import click

from gastown_mail.cli.here import json_option, open_town, show, table, town_option
from gastown_mail.mail.dead import DeadLetters


@click.group(invoke_without_command=True)
@town_option
@json_option
@click.pass_context
def dead(context: click.Context, town: str | None, as_json: bool) -> None:
    """List the dead letters with their reasons; `revive ID` or `drop ID` one of them."""
    context.meta["town"] = town
    if context.invoked_subcommand is None:
        _list(town, as_json)


def _list(town: str | None, as_json: bool) -> None:
    with open_town(town) as opened:
        ids = DeadLetters(opened.redis, opened.keys).ids()
        records = [{"id": i, **record} for i, record in zip(ids, opened.requests.records(ids), strict=True)]
    if as_json:
        show(records)
    elif records:
        rows = [(r["id"], r.get("status"), r.get("agent") or r.get("to"), r.get("detail")) for r in records]
        click.echo(table(("ID", "STATUS", "AGENT", "REASON"), rows, width=200))
    else:
        click.echo("no dead letters")


@dead.command()
@click.argument("request_id", metavar="ID")
@click.pass_context
def revive(context: click.Context, request_id: str) -> None:
    """Put a dead letter back into the inbox, as if asked for now."""
    with open_town(context.meta["town"]) as opened:
        DeadLetters(opened.redis, opened.keys).revive(request_id)
    click.echo(f"{request_id} is back in the inbox")


@dead.command()
@click.argument("request_id", metavar="ID")
@click.pass_context
def drop(context: click.Context, request_id: str) -> None:
    """Take a dead letter off the list."""
    with open_town(context.meta["town"]) as opened:
        DeadLetters(opened.redis, opened.keys).drop(request_id)
    click.echo(f"{request_id} is dropped")
