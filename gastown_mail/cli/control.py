"""`poke`, `run`, `attach`, `pause`, `resume`, `clear`, `adopt`: what an operator does to an agent."""

import os

import click
from rq.job import Job

from gastown_mail.cli.options import agent_argument, complete_agents, open_town, town_option
from gastown_mail.cli.output import wait_for
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError, GastownError
from gastown_mail.daemon.service import request_sweep
from gastown_mail.lifecycle.release import move_agent
from gastown_mail.lifecycle.start import StartOutcome, StartResult, adopt_session
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.environment import without_town
from gastown_mail.sessions.poke import PokeResult
from gastown_mail.town.backoff import NO_HISTORY
from gastown_mail.town.records import TOWN, Desired
from gastown_mail.town.town import Town

_JOB_TIMEOUT = 30.0
"""Seconds within which a worker must do what an operator asks for."""

_POKE_MARGIN = 8.0
"""Seconds that a poke may take once its text is typed."""


@click.command()
@town_option
@agent_argument
@click.argument("text", default="")
def poke(address: str, text: str) -> None:
    """Type AGENT's poke, or TEXT, into its session now."""
    with open_town() as town:
        agent = _placed(town, address)
        until = town.now().timestamp() + _JOB_TIMEOUT - _POKE_MARGIN
        answer = _await_answer(town.queues.enqueue_poke(agent, text, until), agent)
    _print_answer(agent, answer, ok=answer.startswith(PokeResult.DELIVERED))


@click.command()
@town_option
@agent_argument
def run(address: str) -> None:
    """Start AGENT's session and keep it running from now on."""
    with open_town() as town:
        agent = _placed(town, address)
        town.desired.set(agent.address, Desired.RUNNING)
        job = town.queues.enqueue_start(agent, "an operator asked for it", by="operator")
        outcome = StartOutcome.parse(_await_answer(job, agent))
    _print_answer(agent, str(outcome), ok=outcome.result in (StartResult.STARTED, StartResult.RUNNING))


def _placed(town: Town, address: str) -> Agent:
    """The agent, with the host that serves it now."""
    (agent,) = town.placed([town.roster().pick(address).address]).values()
    if agent.host != town.host and agent.host not in (alive := town.hosts.live()):
        raise GastownError(
            f"host {agent.host}, where {agent.address} is believed to live, is not alive (alive: "
            f"{', '.join(alive) or 'none'}): start its daemon; if that machine is lost for good, "
            f"gastown-mail move {agent.address} HOST --from-dead starts the agent on another host"
        )
    return agent


def _await_answer(job: Job, agent: Agent) -> str:
    """Wait for a worker to run the job and return its result; raises GastownError if none does in time."""

    def is_over() -> bool:
        job.get_status(refresh=True)
        return bool(job.is_finished or job.is_failed)

    if not wait_for(is_over, f"a worker on host {agent.host}", _JOB_TIMEOUT):
        raise GastownError(
            f"no worker on host {agent.host} answered within {_JOB_TIMEOUT:.0f} s; see gastown-mail status"
        )
    return str(job.return_value(refresh=True) or "failed: see gastown-mail logs")


def _print_answer(agent: Agent, answer: str, *, ok: bool) -> None:
    if not ok:
        raise GastownError(f"{agent.address}: {answer}")
    click.echo(f"{agent.address}: {answer}")


@click.command()
@town_option
@agent_argument
def attach(address: str) -> None:
    """Show AGENT's session in this terminal; detach with Ctrl-B d."""
    with open_town() as town:
        agent = _local_agent(town, address)
        session = town.sessions.find(agent)
        if session is None:
            raise GastownError(f"{agent.address} has no session; gastown-mail run {agent.address} starts one")
        argv = town.sessions.tmux.attach_argv(session.id)
    # tmux refuses to attach from inside a session as long as TMUX is set
    os.execve(argv[0], argv, without_town(os.environ))


def _local_agent(town: Town, address: str) -> Agent:
    agent = _placed(town, address)
    if agent.host != town.host:
        raise AddressError(f"{agent.address} lives on host {agent.host}; run this command there")
    return agent


@click.command()
@town_option
@click.argument("address", metavar="[AGENT]", default="", shell_complete=complete_agents)
@click.option("--all", "whole", is_flag=True, help="Pause the whole town.")
def pause(address: str, whole: bool) -> None:
    """Leave AGENT or the whole town alone until `resume`: no requests, starts or pokes."""
    name = _set_paused(address, whole, paused=True)
    click.echo(f"{name} is paused; gastown-mail resume {address or '--all'} ends the pause")


@click.command()
@town_option
@click.argument("address", metavar="[AGENT]", default="", shell_complete=complete_agents)
@click.option("--all", "whole", is_flag=True, help="Resume the whole town.")
def resume(address: str, whole: bool) -> None:
    """End the pause of AGENT or the whole town and restore what was desired before."""
    click.echo(f"{_set_paused(address, whole, paused=False)} is no longer paused")


def _set_paused(address: str, whole: bool, *, paused: bool) -> str:
    """Pause or resume an agent or the whole town; return its name for people."""
    if whole == bool(address):
        raise click.UsageError("name one AGENT, or use --all for the whole town")
    with open_town() as town:
        target = TOWN if whole else town.roster().pick(address).address
        if paused:
            town.desired.pause(target)
        else:
            town.desired.resume(target)
            request_sweep(town)
    return "the whole town" if whole else target


@click.command()
@town_option
@agent_argument
def clear(address: str) -> None:
    """End the back-off and quarantine of AGENT, so that it can be started again."""
    with open_town() as town:
        agent = town.roster().pick(address)
        town.agents.write_start_history(agent.address, NO_HISTORY)
        record_event(town.redis, town.keys, EventName.CLEARED, agent=agent.address)
        request_sweep(town)
    click.echo(f"{agent.address} may be started again")


@click.command()
@town_option
@agent_argument
@click.argument("host")
@click.option(
    "--from-dead",
    is_flag=True,
    help="The host that has the agent is dead and ends nothing any more: start it on HOST without it.",
)
def move(address: str, host: str, from_dead: bool) -> None:
    """Move AGENT to HOST: its present host ends its session, then HOST starts it."""
    with open_town() as town:
        agent = town.roster().pick(address)
        click.echo(f"{agent.address}: {move_agent(town, agent, host, from_dead=from_dead)}")


@click.command()
@town_option
@agent_argument
def adopt(address: str) -> None:
    """Take over a session that you started for AGENT. From then on it is poked and can be ended."""
    with open_town() as town:
        agent = _local_agent(town, address)
        session = adopt_session(town, agent)
    click.echo(f"{agent.address}: adopted session {session.name}")
