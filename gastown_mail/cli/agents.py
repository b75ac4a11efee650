"""`agents`: what should be of each agent, and what is."""

import json

import click

from gastown_mail.cli.look import StatusCollector
from gastown_mail.cli.options import agent_option, json_option, load, town_option
from gastown_mail.cli.output import print_json
from gastown_mail.cli.report import OBSERVED
from gastown_mail.cli.rows import rows_table


@click.command()
@town_option
@json_option
@agent_option
@click.option("--status", "observed", type=click.Choice(OBSERVED), help="Only those observed to be so.")
def agents(as_json: bool, agent: str | None, observed: str | None) -> None:
    """List the agents: what should be and what is."""
    look = StatusCollector(load())
    roster = look.town.roster()
    only = roster.resolve(agent).address if agent else None
    rows = [
        row for row in look.rows(roster) if only in (None, row.agent) and observed in (None, row.observed)
    ]
    if as_json:
        print_json([json.loads(row.model_dump_json()) for row in rows])
    elif rows:
        click.echo(rows_table(rows))
    else:
        click.echo("no such agents" if agent or observed else "the town has no agents")
    if look.failure:
        raise look.failure
