"""`poke`, `run`, `attach`: what an operator does to one agent."""

import os

import click
from rq.job import Job

from gastown_mail.cli.options import complete_agents, open_town, town_option
from gastown_mail.cli.output import wait_for
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError, GastownError
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town

JOB_TIMEOUT = 30.0
"""Seconds in which a worker must have done what an operator asked for."""


@click.command()
@town_option
@click.argument("agent", shell_complete=complete_agents)
@click.argument("text", default="")
def poke(town: str | None, agent: str, text: str) -> None:
    """Type AGENT's poke (or TEXT) into its session now."""
    with open_town(town) as opened:
        whom = opened.roster().resolve(agent)
        _wait_and_print(opened.queues.enqueue_poke(whom, text), whom, "delivered")


@click.command()
@town_option
@click.argument("agent", shell_complete=complete_agents)
def run(town: str | None, agent: str) -> None:
    """Start AGENT's session, and want it to run from now on."""
    with open_town(town) as opened:
        whom = opened.roster().resolve(agent)
        opened.desired.set(whom.address, Desired.RUNNING)
        job = opened.queues.enqueue_start(whom, "an operator asked for it", by="operator")
        _wait_and_print(job, whom, "started", "runs already")


def _wait_and_print(job: Job, agent: Agent, *good: str) -> None:
    """Wait for the worker's answer and say it; raises GastownError unless it begins with a good word."""
    if not wait_for(lambda: _is_over(job), f"a worker of host {agent.host} to do it", JOB_TIMEOUT):
        raise GastownError(
            f"no worker of host {agent.host} answered within {JOB_TIMEOUT:.0f} s; see gastown-mail status"
        )
    answer = str(job.return_value(refresh=True) or "failed: see gastown-mail logs")
    if not answer.startswith(good):
        raise GastownError(f"{agent.address}: {answer}")
    click.echo(f"{agent.address}: {answer}")


def _is_over(job: Job) -> bool:
    job.get_status(refresh=True)
    return bool(job.is_finished or job.is_failed)


@click.command()
@town_option
@click.argument("agent", shell_complete=complete_agents)
def attach(town: str | None, agent: str) -> None:
    """Show AGENT's session in this terminal (detach with Ctrl-B d)."""
    with open_town(town) as opened:
        whom = opened.roster().resolve(agent)
        if whom.host != opened.host:
            raise AddressError(f"{whom.address} lives on host {whom.host}, not here")
        _attach(opened, whom)


def _attach(town: Town, agent: Agent) -> None:
    session = town.sessions.find(agent.session)
    if session is None:
        raise GastownError(f"{agent.address} has no session; gastown-mail run {agent.address} starts one")
    argv = town.sessions.tmux.attach_argv(session.id)
    # Without TMUX, so that it works from inside another session too.
    os.execve(argv[0], argv, {key: value for key, value in os.environ.items() if key != "TMUX"})
