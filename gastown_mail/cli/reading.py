"""`requests` and `inbox`: what was asked for and is not done yet."""

import click

from gastown_mail.cli.here import json_option, open_town, show, table, town_option
from gastown_mail.mail.inbox import Inbox

SHOWN = 50


@click.command()
@town_option
@json_option
@click.argument("request_ids", metavar="[ID]...", nargs=-1)
def requests(town: str | None, as_json: bool, request_ids: tuple[str, ...]) -> None:
    """List the requests that are not settled yet, or show those with these ids."""
    with open_town(town) as opened:
        ids = list(request_ids) or list(opened.requests.open())
        records = [{"id": i, **record} for i, record in zip(ids, opened.requests.records(ids), strict=True)]
    if as_json:
        show(records)
    elif records:
        keys = ("id", "status", "agent", "action", "received_at", "detail")
        click.echo(
            table([k.upper() for k in keys], [[r.get(k, "") for k in keys] for r in records], width=200)
        )
    else:
        click.echo("no open requests")


@click.command()
@town_option
@json_option
def inbox(town: str | None, as_json: bool) -> None:
    """Show what waits in the inbox, oldest first, and leave it there."""
    with open_town(town) as opened:
        box = Inbox(opened.redis, opened.keys)
        waiting, oldest = box.waiting(), [e.decode(errors="replace") for e in box.peek(SHOWN)]
    if as_json:
        show({"waiting": waiting, "oldest": oldest})
    else:
        click.echo(
            "\n".join([f"{waiting} waiting", *(table((text[:200],), [], width=200) for text in oldest)])
        )
