"""`agents`: what should be of each agent, and what is."""

from datetime import datetime
from typing import Any

import click

from gastown_mail.cli.here import json_option, open_town, show, table, town_option
from gastown_mail.contracts.times import ZERO_TIME, format_time
from gastown_mail.daemon.town import Town
from gastown_mail.sessions.session import Session


@click.command()
@town_option
@json_option
def agents(town: str | None, as_json: bool) -> None:
    """List the agents: what should be and what is."""
    with open_town(town) as opened:
        rows = agent_rows(opened)
    if as_json:
        show(rows)
    else:
        click.echo(agents_table(rows))


def agent_rows(town: Town) -> list[dict[str, Any]]:
    """What is known of each agent, as plain data. Raises Unknown when tmux does not answer."""
    roster = town.roster()
    sessions = town.sessions.snapshot()
    records = town.agents.read_all(list(roster.agents))
    return [
        {
            "agent": agent.address,
            "desired": record.desired.value if record.desired else "",
            "observed": _observed(sessions.get(agent.session))
            if agent.host == town.host
            else "on another host",
            "session": agent.session,
            "host": agent.host,
            "started_at": _moment(record.started_at),
            "last_poke": _moment(record.last_poke),
            "restarts": record.restarts,
            "decision": record.decision,
        }
        for agent, record in zip(roster.agents.values(), records, strict=True)
    ]


def _observed(session: Session | None) -> str:
    if session is None:
        return "no session"
    if not session.incarnation:
        return "not ours"
    return "ended" if session.dead else "alive"


def _moment(moment: datetime) -> str:
    return "" if moment == ZERO_TIME else format_time(moment)


def agents_table(rows: list[dict[str, Any]]) -> str:
    headings = ("AGENT", "DESIRED", "OBSERVED", "SESSION", "LAST DECISION")
    keys = ("agent", "desired", "observed", "session", "decision")
    return table(headings, [[row[key] or "-" for key in keys] for row in rows], width=120)
