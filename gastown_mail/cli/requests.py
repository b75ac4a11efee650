"""`requests`, `inbox`, `dead`: requests and their outcomes, unread elements, and dead letters."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from gastown_mail.cli.events import event_document, format_event
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
from gastown_mail.contracts.go_formats import format_duration, format_time, parse_time
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, RequestStatus
from gastown_mail.lifecycle.clerk import classify
from gastown_mail.mail.events import Event, iter_newest_first
from gastown_mail.mail.inbox import Inbox
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

_Record = dict[str, str]
_PAGE = 500
"""Records read from Redis at a time."""

_INBOX_PAGE = 200
"""Elements of the inbox read at a time; each may be large."""

_MAX_REASON, _MAX_RAW = 80, 200
"""Characters of a reason, and of an invalid element, that a list shows."""

_FIRST_FIELDS = ("id status agent action from to reason timestamp received_at finished_at detail").split()
"""The fields of a request that are shown first, in this order."""


@click.command()
@town_option
@json_option
@agent_option
@click.option(
    "--status", type=click.Choice([status.value for status in RequestStatus]), help="Show only this status."
)
@since_option
@count_option(50, "Show only the newest N.")
@click.argument("request_ids", metavar="[ID]...", nargs=-1)
def requests(
    as_json: bool, agent: str | None, status: str | None, since: float | None, count: int,
    request_ids: tuple[str, ...],
) -> None:  # fmt: skip
    """List open requests. With a filter, list settled ones too; with IDs, show these in detail."""
    if request_ids:
        if agent or status or since is not None:
            raise click.UsageError("give IDs or filters, not both")
        with open_town() as town:
            _show_details(town, request_ids, as_json)
        return
    with open_town() as town:
        address = address_of(town, agent)
        filtered = bool(address) or since is not None
        settled_too = status in FINAL_STATUSES or (status is None and filtered)
        ids = town.requests.all_ids() if settled_too else list(town.requests.unsettled())
        records = [
            r for r in _records(town, ids) if matches_agent(r, address) and status in (None, r["status"])
        ]
    recent = [record for record in records if since is None or _received_at(record) >= since]
    shown = last_n(sorted(recent, key=_received_at), count)
    if as_json:
        print_json(shown)
    elif shown:
        rows = [(r["id"], r["status"], r["action"] or "-", agent_of(r) or "-", _summary(r)) for r in shown]
        click.echo(table(("ID", "STATUS", "ACTION", "AGENT", "REQUEST AND OUTCOME"), rows))
    else:
        click.echo(
            "no such requests; without a filter only open ones are shown; --since 24h shows settled ones too"
        )


def _records(town: Town, ids: Sequence[str]) -> Iterator[_Record]:
    """The records of these requests; ids without a record are skipped."""
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        for request_id, record in zip(page, town.requests.records(page), strict=True):
            if record.get("received_at"):
                yield {"id": request_id, **record}


def _received_at(record: _Record) -> float:
    return parse_time(record["received_at"]).timestamp()


def _summary(record: _Record) -> str:
    asked = format_age(record["received_at"]) + (f" by {record['from']}" if record["from"] else "")
    if record["reason"]:
        asked += f' because "{textwrap.shorten(record["reason"], _MAX_REASON, placeholder="…")}"'
    return ": ".join(filter(None, (asked, record["detail"])))


def _show_details(town: Town, ids: Sequence[str], as_json: bool) -> None:
    records = {record["id"]: record for record in _records(town, ids)}
    if missing := [request_id for request_id in ids if request_id not in records]:
        kept = format_duration(town.keys.requests_kept)
        raise GastownError(
            f"there is no request {', '.join(missing)}: settled requests are kept for {kept}, "
            "and gastown-mail inbox shows those not yet read"
        )
    events: dict[str, list[Event]] = {request_id: [] for request_id in ids}
    for event in iter_newest_first(town.redis, town.keys):
        if (request_id := event.fields.get("request", "")) in events:
            events[request_id].insert(0, event)
    if as_json:
        print_json([{**records[i], "events": [event_document(event) for event in events[i]]} for i in ids])
        return
    texts = []
    for request_id in ids:
        record = {**dict.fromkeys(_FIRST_FIELDS, ""), **records[request_id]}
        lines = [wrap(f"{name:<12} {strip_controls(text)}", 13) for name, text in record.items() if text]
        way = [wrap(format_event(event), 14) for event in events[request_id]]
        texts.append("\n".join([*lines, "", *way]).rstrip())
    click.echo("\n\n".join(texts))


@click.command()
@town_option
@json_option
@agent_option
@since_option
@count_option(50, "Show only the oldest N.")
def inbox(as_json: bool, agent: str | None, since: float | None, count: int) -> None:
    """List the elements of the inbox, oldest first, without taking them out."""
    with open_town() as town:
        address, box, roster = address_of(town, agent), Inbox(town.redis, town.keys), town.roster()
        waiting = box.length()
        oldest: list[dict[str, Any]] = []
        start = 0
        while len(oldest) < count and (page := box.peek(_INBOX_PAGE, start)):
            documents = [_describe_element(element, roster) for element in page]
            oldest += [d for d in documents if address in (None, d["agent"]) and d["epoch"] >= (since or 0.0)]
            start += len(page)
        del oldest[count:]
    if as_json:
        print_json({"waiting": waiting, "oldest": oldest})
        return
    click.echo(f"{waiting} waiting" + (f", {len(oldest)} shown" if len(oldest) < waiting else ""))
    if oldest:
        rows = [(d["id"], d["action"] or "-", agent_of(d) or "-", _expectation(d)) for d in oldest]
        click.echo(table(("ID", "ACTION", "AGENT", "REQUEST"), rows))


def _describe_element(element: bytes, roster: Roster) -> dict[str, Any]:
    """An element as the clerk will classify it, without token and handoff; `raw` if it is not a request."""
    incoming = classify(element, roster.resolve)
    request = incoming.request
    return {
        "id": incoming.id,
        "agent": incoming.agent,
        "from": incoming.asker or (request.sender if request else ""),
        "to": request.target if request else "",
        "action": request.action.value if request else "",
        "timestamp": format_time(request.timestamp) if request else "",
        "epoch": request.timestamp.timestamp() if request else 0.0,
        "reason": request.reason if request else "",
        "refusal": incoming.rejection,
        "raw": "" if request else element.decode(errors="replace"),
    }


def _expectation(document: dict[str, Any]) -> str:
    """What the clerk will make of an element, for people."""
    refusal, raw = document["refusal"], document["raw"]
    if raw:
        return f"invalid ({refusal}): {raw[:_MAX_RAW]}{'…' if len(raw) > _MAX_RAW else ''}"
    asked = f"{format_age(document['timestamp'])} by {document['from']}"
    return ": ".join(filter(None, (asked, document["reason"], refusal and f"will be refused: {refusal}")))


@click.group(invoke_without_command=True)
@town_option
@json_option
@agent_option
@click.option(
    "--status", type=click.Choice(sorted(status.value for status in DEAD_STATUSES)),
    help="Show only this status.",
)  # fmt: skip
@since_option
@count_option(50, "Show only the newest N.")
@click.pass_context
def dead(
    context: click.Context,
    as_json: bool,
    agent: str | None,
    status: str | None,
    since: float | None,
    count: int,
) -> None:
    """List dead letters with their reasons; `revive` or `drop` some of them."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    with open_town() as town:
        address = address_of(town, agent)
        ids = DeadLetters(town.redis, town.keys).ids(since or 0.0)
        records = [{"id": i, **record} for i, record in zip(ids, town.requests.records(ids), strict=True)]
    matches = [r for r in records if matches_agent(r, address) and status in (None, r.get("status"))]
    shown = last_n(matches, count)
    if as_json:
        print_json(shown)
    elif shown:
        rows = [
            (
                r["id"], r.get("status", "-"), r.get("action") or "-", agent_of(r) or "-",
                f"{format_age(r.get('finished_at', ''))}: {r.get('detail', '')}",
            )
            for r in shown
        ]  # fmt: skip
        click.echo(table(("ID", "STATUS", "ACTION", "AGENT", "SINCE, AND WHY"), rows))
    else:
        click.echo("no dead letters" if not records else "no such dead letters")


@dead.command()
@town_option
@json_option
@click.argument("request_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def revive(list_as_json: bool, as_json: bool, request_ids: tuple[str, ...]) -> int:
    """Put dead letters back into the inbox, as if they had just been sent."""
    return _apply(DeadLetters.revive, request_ids, "back in the inbox", as_json or list_as_json)


@dead.command()
@town_option
@json_option
@click.argument("request_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def drop(list_as_json: bool, as_json: bool, request_ids: tuple[str, ...]) -> int:
    """Remove dead letters from the list."""
    return _apply(DeadLetters.drop, request_ids, "dropped", as_json or list_as_json)


def _apply(act: Callable[[DeadLetters, str], None], ids: tuple[str, ...], done: str, as_json: bool) -> int:
    """Do `act` to each dead letter and return the exit code; a failure does not stop the others."""
    outcomes: list[dict[str, Any]] = []
    with open_town() as town:
        letters = DeadLetters(town.redis, town.keys)
        for request_id in ids:
            try:
                act(letters, request_id)
                outcomes.append({"id": request_id, "done": True, "detail": done})
            except GastownError as error:
                outcomes.append({"id": request_id, "done": False, "detail": str(error)})
    if as_json:
        print_json(outcomes)
    else:
        for outcome in outcomes:
            click.echo(f"{outcome['id']}: {outcome['detail']}", err=not outcome["done"])
    return 0 if all(outcome["done"] for outcome in outcomes) else 1
