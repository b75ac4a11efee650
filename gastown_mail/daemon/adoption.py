"""Making a session ours that somebody else started: it gets a token, and its agent's record says so."""

from gastown_mail.contracts.agent import Agent
from gastown_mail.contracts.errors import GastownError
from gastown_mail.daemon.starting import new_incarnation, record_session
from gastown_mail.daemon.town import Town
from gastown_mail.daemon.turn import hold_lease
from gastown_mail.mail.events import record_event
from gastown_mail.sessions.session import Session


def adopt_session(town: Town, agent: Agent) -> Session:
    """Adopt the session of the agent's name; raises GastownError when there is none or it is ours already."""
    with hold_lease(town.redis, town.keys.lease(agent.address), town.host) as lease:
        if lease is None:
            raise GastownError(f"something is being done to {agent.address} just now; try again")
        session = town.sessions.find(agent.session)
        if session is None:
            raise GastownError(
                f"there is no session {agent.session}; gastown-mail run {agent.address} starts one"
            )
        if session.incarnation:
            raise GastownError(f"the session {agent.session} is ours already")
        generation = town.agents.next_generation(agent.address)
        adopted = town.sessions.adopt(session, agent, incarnation=new_incarnation(), generation=generation)
        record_session(town, lease, agent, adopted)
        record_event(town.redis, town.keys, "adopted", agent=agent.address, session=adopted.name)
        return adopted
