"""`requests`: what was asked for, and what came of it."""

import textwrap
from collections.abc import Iterator, Sequence

import click

from gastown_mail.cli.facts import format_event, to_json
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
from gastown_mail.cli.output import format_age, print_json, strip_controls, table, wrap
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import format_duration, parse_time
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, RequestStatus
from gastown_mail.mail.events import Event, iter_newest_first
from gastown_mail.town.town import Town

Record = dict[str, str]
PAGE, REASON_SHOWN = 500, 80
FIELDS = (
    *("id", "status", "agent", "action", "from", "to", "reason"),
    *("timestamp", "received_at", "finished_at", "detail"),
)
"""What a request is shown with, in this order."""

NONE = "no such requests; without a filter only open ones are shown, --since 24h shows settled ones too"


@click.command()
@town_option
@json_option
@agent_option
@click.option("--status", type=click.Choice([status.value for status in RequestStatus]), help="Only those.")
@since_option
@count_option(50, "How many of the newest to show.")
@click.argument("request_ids", metavar="[ID]...", nargs=-1)
def requests(
    town: str | None, as_json: bool, agent: str | None, status: str | None, since: float | None, count: int,
    request_ids: tuple[str, ...],
) -> None:  # fmt: skip
    """List the requests not settled yet; with a filter, all that are kept. With IDs, show those whole."""
    if request_ids and (agent or status or since is not None):
        raise click.UsageError("say which requests by their IDs or by filters, not by both")
    with open_town(town) as opened:
        if request_ids:
            _show_whole(opened, request_ids, as_json)
            return
        address = address_of(opened, agent)
        records = list(_records(opened, _ids(opened, status, filtered=bool(address) or since is not None)))
    found = [r for r in records if matches_agent(r, address) and status in (None, r["status"])]
    young = [r for r in found if since is None or received(r) >= since]
    _show_list(last_n(sorted(young, key=received), count), as_json)


def _ids(town: Town, status: str | None, *, filtered: bool) -> list[str]:
    """Whose records to look at: the open requests, or all that are kept where settled ones are meant too."""
    settled_too = status in FINAL_STATUSES or (status is None and filtered)
    return town.requests.all_ids() if settled_too else list(town.requests.unsettled())


def _records(town: Town, ids: Sequence[str]) -> Iterator[Record]:
    """The records of these ids that are (still) there."""
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        for request_id, record in zip(page, town.requests.records(page), strict=True):
            if record.get("received_at"):
                yield {"id": request_id, **record}


def received(record: Record) -> float:
    """When the clerk booked it, in seconds since the epoch."""
    return parse_time(record["received_at"]).timestamp()


def _show_list(found: Sequence[Record], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        rows = [(r["id"], r["status"], r["action"] or "-", agent_of(r) or "-", summary(r)) for r in found]
        click.echo(table(("ID", "STATUS", "ACTION", "AGENT", "ASKED FOR, AND WHAT CAME OF IT"), rows))
    else:
        click.echo(NONE)


def summary(record: Record) -> str:
    """When and by whom it was asked for, and what came of it, for people."""
    asked = format_age(record["received_at"]) + (f" by {record['from']}" if record["from"] else "")
    if record["reason"]:
        asked += f' because "{textwrap.shorten(record["reason"], REASON_SHOWN, placeholder="…")}"'
    return ": ".join(filter(None, (asked, record["detail"])))


def _show_whole(town: Town, ids: Sequence[str], as_json: bool) -> None:
    found = {record["id"]: record for record in _records(town, ids)}
    if missing := [request_id for request_id in ids if request_id not in found]:
        kept = format_duration(town.keys.requests_kept)
        raise GastownError(
            f"there is no request {', '.join(missing)}: settled ones are kept for {kept}, "
            "and gastown-mail inbox shows those that nobody has read yet"
        )
    ways = _events_by_request(town, ids)
    if as_json:
        print_json([{**found[i], "events": [to_json(event) for event in ways[i]]} for i in ids])
    else:
        click.echo(
            "\n\n".join(_format_one(found[i], [format_event(event) for event in ways[i]]) for i in ids)
        )


def _events_by_request(town: Town, ids: Sequence[str]) -> dict[str, list[Event]]:
    """The events that name these requests, oldest first, by id."""
    ways: dict[str, list[Event]] = {request_id: [] for request_id in ids}
    for event in iter_newest_first(town.redis, town.keys):
        if (request_id := event.fields.get("request", "")) in ways:
            ways[request_id].insert(0, event)
    return ways


def _format_one(record: Record, way: Sequence[str]) -> str:
    names = [*FIELDS, *(name for name in record if name not in FIELDS)]
    lines = [wrap(f"{name:<12} {strip_controls(record[name])}", 13) for name in names if record.get(name)]
    return "\n".join([*lines, "", *(wrap(line, 14) for line in way)]).rstrip()
