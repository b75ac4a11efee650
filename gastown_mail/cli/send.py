"""`send`: ask for a cycle, a restart or a shutdown. Inside a session it imports only what it needs."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gastown_mail.cli.options import complete_agents, complete_words, given_town, open_town, town_option
from gastown_mail.contracts.errors import AddressError, GastownError, RedisUnavailable, SettingsError
from gastown_mail.contracts.lifecycle import (
    FINAL_STATUSES,
    OPERATOR,
    LifecycleAction,
    RequestStatus,
    new_request_id,
)
from gastown_mail.mail.send import (
    ACCEPTED,
    LOST,
    Receipt,
    build_element,
    default_sender,
    send_at,
    send_lifecycle,
)

if TYPE_CHECKING:
    from gastown_mail.town.town import Town

_REPORT_EVERY = 1.0
"""Seconds between two checks of the status while waiting."""

_STATUS_HINTS = {
    ACCEPTED: "the clerk has not read it yet",
    RequestStatus.RECEIVED.value: "it waits for other requests or for a worker; see gastown-mail status",
    RequestStatus.CARRYING.value: "the session is being ended or its successor started",
}


@click.command()
@click.argument("action", shell_complete=complete_words(*LifecycleAction))
@town_option
@click.option(
    "--agent",
    metavar="A",
    shell_complete=complete_agents,
    help="The sender; default: in a session its agent, elsewhere operator.",
)
@click.option(
    "--to", metavar="A", shell_complete=complete_agents, help="The agent to act on; default: the sender."
)
@click.option("--reason", metavar="T", default="", help="The reason, for people.")
@click.option("--id", "request_id", metavar="ID", help="The request's id; the same id again changes nothing.")
@click.option(
    "--handoff",
    metavar="T",
    default="",
    help="With cycle: notes for the new session; - reads stdin, @FILE reads a file.",
)
@click.option(
    "--wait", metavar="SECONDS", type=float, help="Wait this long for the outcome; fail unless it is done."
)
def send(
    action: str, agent: str | None, to: str | None, reason: str, request_id: str | None, handoff: str,
    wait: float | None,
) -> None:  # fmt: skip
    """Ask for ACTION (cycle, restart or shutdown) and print the request's id."""
    try:
        if handoff == "-":
            handoff = sys.stdin.read()
        elif handoff.startswith("@"):
            handoff = Path(handoff[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the request was not sent: the handoff {handoff} cannot be read: {error}"
        ) from None
    in_session = os.environ.get("GASTOWN_REDIS_URL") and os.environ.get("GASTOWN_TOWN_NAME")
    if in_session and not given_town():
        receipt = send_lifecycle(
            action, agent=agent, to=to, reason=reason, handoff=handoff, request_id=request_id
        )
    else:
        receipt = _send_from_outside(action, agent, to, reason, handoff, request_id)
    click.echo(receipt.id)
    if wait is not None:
        _wait(receipt, wait)


def _send_from_outside(
    action: str, agent: str | None, to: str | None, reason: str, handoff: str, request_id: str | None
) -> Receipt:
    """Send to the town that the settings name."""
    from gastown_mail.lifecycle.clerk import Clerk

    with open_town() as town:
        url, name, now = town.redis_url, town.settings.town_name, town.clock.now_or_local()
        agent = agent or default_sender(os.environ)
        to = to and _in_full(town, to)
        if agent != OPERATOR or not town.settings.daemon.require_incarnation:
            return send_at(
                now, "redis", action, agent=agent, to=to, reason=reason, handoff=handoff,
                request_id=request_id, redis_url=url, town=name,
                environ={**os.environ, "GASTOWN_MIN_REPLICAS": str(town.settings.daemon.min_replicas)},
            )  # fmt: skip
        # This town's inbox takes no requests from the operator: any agent could write one.
        chosen_id = new_request_id() if request_id is None else request_id
        element = build_element(
            chosen_id,
            action,
            agent,
            to=to,
            token="",
            reason=reason,
            handoff=handoff,
            now=now,
            clock="redis",
        )
        Clerk(town).accept([element], trusted=True)
        return Receipt(chosen_id, url, name)


def _in_full(town: "Town", spelling: str) -> str:
    """The address of the agent that the last part of its address names; any other text unchanged."""
    with suppress(AddressError):
        return town.roster().pick(spelling).address
    return spelling


def _wait(receipt: Receipt, seconds: float) -> None:
    """Wait for the outcome; print each status that lasts, and what it means."""
    click.echo(f"waiting at most {seconds:g} s for the outcome", err=True)
    until, last_text = time.monotonic() + seconds, ""
    while True:
        left = until - time.monotonic()
        try:
            status = receipt.wait(min(left, _REPORT_EVERY))
            if status in (*FINAL_STATUSES, LOST) or left <= _REPORT_EVERY:
                break
            text = f"{status}, {receipt.detail() or _STATUS_HINTS.get(status, '')}"
        except RedisUnavailable as error:
            if left <= _REPORT_EVERY:
                raise
            text = str(error)
        if text != last_text:
            click.echo(f"waiting at most {left - _REPORT_EVERY:.0f} s more: {text}", err=True)
        last_text = text
    if status not in (*FINAL_STATUSES, LOST):
        raise GastownError(
            f"still {status} after {seconds:g} s; gastown-mail requests {receipt.id} shows it later"
        )
    outcome = f"{status}: {receipt.detail()}"
    if status != RequestStatus.DONE:
        raise GastownError(outcome)
    click.echo(outcome, err=True)
