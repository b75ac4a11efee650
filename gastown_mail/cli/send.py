"""`send`: ask for a cycle, a restart or a shutdown. Inside a session it imports no more than it needs."""

import os
import sys
import time
from pathlib import Path

import click

from gastown_mail.cli.options import complete_agents, complete_words
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.lifecycle import (
    FINAL_STATUSES,
    OPERATOR,
    LifecycleAction,
    RequestStatus,
    new_request_id,
)
from gastown_mail.mail.send import ACCEPTED, Receipt, build_element, send_lifecycle

SAY_EVERY = 1.0
"""Seconds that a status lasts before it is said."""

STATUS_HINTS = {
    ACCEPTED: "no clerk has read it yet",
    RequestStatus.RECEIVED.value: "it waits for its turn or for a worker; gastown-mail status shows both",
    RequestStatus.CARRYING.value: "the session is being ended, or its successor started",
}


@click.command()
@click.argument("action", shell_complete=complete_words(*LifecycleAction))
@click.option("--town", metavar="DIR", help="The town's folder.")
@click.option(
    "--agent", metavar="A", shell_complete=complete_agents, help="Who asks; inside a session that is known."
)
@click.option(
    "--to", metavar="A", shell_complete=complete_agents, help="Whose session; default: the asker's own."
)
@click.option("--reason", metavar="T", default="", help="Why, for people.")
@click.option(
    "--handoff", metavar="T", default="", help="With cycle: text for the successor; - stdin, @FILE a file."
)
@click.option(
    "--wait", metavar="SECONDS", type=float, help="Wait so long for the outcome; fail unless it is done."
)
def send(
    action: str,
    town: str | None,
    agent: str | None,
    to: str | None,
    reason: str,
    handoff: str,
    wait: float | None,
) -> None:
    """Ask for ACTION (cycle, restart, shutdown); prints the request's id."""
    said = town or click.get_current_context().find_root().obj
    text = _text(handoff)
    if agent == OPERATOR and not _in_session(said):
        receipt = _as_operator(said, action, to=to, reason=reason, handoff=text)
    else:
        url, name = _place(said)
        receipt = send_lifecycle(
            action, agent=agent, to=to, reason=reason, handoff=text, redis_url=url, town=name
        )
    click.echo(receipt.id)
    if wait is not None:
        _wait(receipt, wait)


def _place(town: str | None) -> tuple[str | None, str | None]:
    """The Redis and the name of the town; both None when the environment of the session says them."""
    if _in_session(town):
        return None, None
    from gastown_mail.cli.options import load
    from gastown_mail.daemon.service import redis_url

    settings = load(town)
    return redis_url(settings), settings.town_name


def _in_session(town: str | None) -> bool:
    """Does the environment of a session say where the town is?"""
    return not town and bool(os.environ.get("GASTOWN_REDIS_URL") and os.environ.get("GASTOWN_TOWN_NAME"))


def _as_operator(town: str | None, action: str, *, to: str | None, reason: str, handoff: str) -> Receipt:
    """Where agents must prove themselves, nobody is the operator by saying so in the inbox."""
    from gastown_mail.cli.options import open_town
    from gastown_mail.lifecycle.clerk import Clerk

    with open_town(town) as opened:
        url, name = opened.redis_url, opened.settings.town_name
        if not opened.settings.daemon.require_incarnation:
            return send_lifecycle(
                action, agent=OPERATOR, to=to, reason=reason, handoff=handoff, redis_url=url, town=name
            )
        request_id = new_request_id()
        element = build_element(request_id, action, OPERATOR, to=to, token="", reason=reason, handoff=handoff)
        Clerk(opened).accept([element], trusted=True)
        return Receipt(request_id, url, name)


def _text(handoff: str) -> str:
    try:
        if handoff == "-":
            return sys.stdin.read()
        return Path(handoff[1:]).read_text() if handoff.startswith("@") else handoff
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the request was not sent: the handoff {handoff} cannot be read: {error}"
        ) from None


def _wait(receipt: Receipt, seconds: float) -> None:
    click.echo(f"waiting at most {seconds:g} s for the outcome", err=True)
    status = _outcome(receipt, seconds)
    if status not in FINAL_STATUSES:
        raise GastownError(
            f"still {status} after {seconds:g} s; gastown-mail requests {receipt.id} shows it later"
        )
    text = f"{status}: {receipt.detail()}"
    if status != RequestStatus.DONE:
        raise GastownError(text)
    click.echo(text, err=True)


def _outcome(receipt: Receipt, seconds: float) -> str:
    """The last status seen within `seconds`; on the way, each that lasts is said with what it means."""
    until, said = time.monotonic() + seconds, ""
    while True:
        left = until - time.monotonic()
        status = receipt.wait(min(left, SAY_EVERY))
        if status in FINAL_STATUSES or left <= SAY_EVERY:
            return status
        stands = f"{status}, {receipt.detail() or STATUS_HINTS.get(status, '')}"
        if stands != said:
            click.echo(f"waiting at most {left - SAY_EVERY:.0f} s more: {stands}", err=True)
        said = stands
