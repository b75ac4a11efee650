"""`inbox`: what nobody has read yet, left where it is."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from gastown_mail.cli.options import (
    address_of,
    agent_of,
    agent_option,
    count_option,
    json_option,
    open_town,
    since_option,
    town_option,
)
from gastown_mail.cli.output import format_age, print_json, table
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.lifecycle.clerk import classify
from gastown_mail.mail.requests import Inbox
from gastown_mail.town.roster import Roster

PAGE = 200
RAW_SHOWN = 200
"""Characters of an element that is no request which the table shows."""


@click.command()
@town_option
@json_option
@agent_option
@since_option
@count_option(50, "How many of the oldest to show.")
def inbox(town: str | None, as_json: bool, agent: str | None, since: float | None, count: int) -> None:
    """Show what waits in the inbox, oldest first, and leave it there."""
    with open_town(town) as opened:
        address, box, roster = address_of(opened, agent), Inbox(opened.redis, opened.keys), opened.roster()
        waiting = box.length()
        read = (describe_element(element, roster) for element in _elements(box))
        meant = (one for one in read if address in (None, one["agent"]) and one["epoch"] >= (since or 0.0))
        oldest = list(islice(meant, count))
    if as_json:
        print_json({"waiting": waiting, "oldest": oldest})
    else:
        _show_list(waiting, oldest)


def _show_list(waiting: int, oldest: list[dict[str, Any]]) -> None:
    click.echo(f"{waiting} waiting" + (f", {len(oldest)} shown" if len(oldest) < waiting else ""))
    if oldest:
        rows = [(one["id"], one["action"] or "-", agent_of(one) or "-", _told(one)) for one in oldest]
        click.echo(table(("ID", "ACTION", "AGENT", "WHAT THE CLERK WILL FIND"), rows))


def _elements(box: Inbox) -> Iterator[bytes]:
    start = 0
    while page := box.peek(PAGE, start):
        yield from page
        start += len(page)


def describe_element(element: bytes, roster: Roster) -> dict[str, Any]:
    """An element as the clerk will judge it, without token and handoff; with its text if it is no request."""
    booking = classify(element, roster)
    request = booking.request
    return {
        "id": booking.id,
        "agent": booking.agent,
        "from": booking.asker or (request.sender if request else ""),
        "to": request.target if request else "",
        "action": request.action.value if request else "",
        "timestamp": format_time(request.timestamp) if request else "",
        "epoch": request.timestamp.timestamp() if request else 0.0,
        "reason": request.reason if request else "",
        "refusal": booking.rejection,
        "raw": "" if request else element.decode(errors="replace"),
    }


def _told(one: dict[str, Any]) -> str:
    if one["raw"]:
        raw = one["raw"] if len(one["raw"]) <= RAW_SHOWN else one["raw"][:RAW_SHOWN] + "…"
        return f"no request ({one['refusal']}): {raw}"
    asked = f"{format_age(one['timestamp'])} by {one['from']}"
    return ": ".join(
        filter(None, (asked, one["reason"], one["refusal"] and f"to be refused: {one['refusal']}"))
    )
