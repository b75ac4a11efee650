"""Whether the town may act, and what is brought back after Redis was flushed."""

from datetime import UTC, datetime

from gastown_mail.contracts.errors import Postponed, StateFileError, StateUnknown
from gastown_mail.mail.events import record_event
from gastown_mail.town.town import Town


def ensure_running(town: Town) -> None:
    """Raise Postponed while nothing may be begun: the town is paused, or its daemon is stopping."""
    recover_after_flush(town)
    if town.redis.hget(town.keys.state, "running") == b"false":
        raise Postponed("the daemon is stopping; it goes on after the next start")
    if town.is_paused():
        raise Postponed("the town is paused; it goes on after gastown-mail resume")


def recover_after_flush(town: Town) -> None:
    """If Redis was flushed, bring back what the disk and tmux still know; otherwise do nothing.

    Raises StateUnknown when the files cannot be read: an agent that was stopped must not be started then.
    """
    try:
        state = town.state.state_before_flush()
        if state is None:
            return
        town.desired.restore()
    except StateFileError as error:
        raise StateUnknown(str(error)) from error
    for session in town.sessions.snapshot().values():
        if session.incarnation and session.agent:
            town.agents.write(
                session.agent, session=session.name, incarnation=session.incarnation,
                started_at=datetime.fromtimestamp(session.started_at, UTC),
            )  # fmt: skip
    town.state.restore(state)
    detail = "Redis was empty; state, desired states and sessions are back"
    record_event(town.redis, town.keys, "restored", detail=detail)
