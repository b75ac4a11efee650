"""`pause`, `resume`, `clear`, `adopt`: what an operator wants of one agent, or of the whole town."""

import click

from gastown_mail.cli.options import complete_agents, open_town, town_option
from gastown_mail.contracts.errors import AddressError
from gastown_mail.daemon.service import request_sweep
from gastown_mail.lifecycle.start import adopt_session
from gastown_mail.mail.events import record_event
from gastown_mail.town.backoff import NO_HISTORY
from gastown_mail.town.records import TOWN
from gastown_mail.town.town import Town


@click.command()
@town_option
@click.argument("agent", default="", shell_complete=complete_agents)
@click.option("--all", "whole", is_flag=True, help="The whole town.")
def pause(town: str | None, agent: str, whole: bool) -> None:
    """Leave AGENT alone until `resume`: no request, no start, no poke."""
    with open_town(town) as opened:
        address = _target(opened, agent, whole)
        opened.desired.pause(address)
    click.echo(f"{_named(address)} is paused; gastown-mail resume ends that")


@click.command()
@town_option
@click.argument("agent", default="", shell_complete=complete_agents)
@click.option("--all", "whole", is_flag=True, help="The whole town.")
def resume(town: str | None, agent: str, whole: bool) -> None:
    """End AGENT's pause: what was wanted before is wanted again."""
    with open_town(town) as opened:
        address = _target(opened, agent, whole)
        opened.desired.resume(address)
        request_sweep(opened)
    click.echo(f"{_named(address)} goes on")


@click.command()
@town_option
@click.argument("agent", shell_complete=complete_agents)
def clear(town: str | None, agent: str) -> None:
    """End AGENT's back-off and quarantine; it is started again if it must run."""
    with open_town(town) as opened:
        whom = opened.roster().resolve(agent)
        opened.agents.write_gate(whom.address, NO_HISTORY)
        record_event(opened.redis, opened.keys, "cleared", agent=whom.address)
        request_sweep(opened)
    click.echo(f"{whom.address} may be started again")


@click.command()
@town_option
@click.argument("agent", shell_complete=complete_agents)
def adopt(town: str | None, agent: str) -> None:
    """Make a session of AGENT's name that is not ours ours: it is poked and can be ended from now on."""
    with open_town(town) as opened:
        whom = opened.roster().resolve(agent)
        if whom.host != opened.host:
            raise AddressError(f"{whom.address} lives on host {whom.host}, not here; adopt it there")
        session = adopt_session(opened, whom)
    click.echo(f"{whom.address}: session {session.name} is ours now")


def _target(town: Town, agent: str, whole: bool) -> str:
    if whole == bool(agent):
        raise click.UsageError("name one AGENT, or say --all for the whole town")
    return TOWN if whole else town.roster().resolve(agent).address


def _named(address: str) -> str:
    return "the whole town" if address == TOWN else address
