"""The handoff: what a session that is cycled leaves its successor, in Redis and then in a file.

The file is what the successor reads (CONTRACTS section 4); Redis is where it is written down with the intent.
"""

from pathlib import Path

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import LifecycleAction
from gastown_mail.contracts.settings import Settings
from gastown_mail.lifecycle.decision import RequestContext
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.sessions.session import Session
from gastown_mail.town.town import Town

SCREEN_LINES = 50


def handoff_file(settings: Settings, agent: Agent) -> Path:
    """Where the handoff for the agent's successor lies (CONTRACTS section 4)."""
    return settings.handoff_dir / f"{agent.session}.md"


def handoff_text(town: Town, case: RequestContext, victim: Session | None) -> str:
    """The agent's own words, else a short note of who asked, why, and what was on the screen."""
    if case.request.action is not LifecycleAction.CYCLE:
        return ""
    if case.request.handoff:
        return case.request.handoff
    screen = town.sessions.capture_screen(victim, SCREEN_LINES) if victim else ""
    reason = case.request.reason or "none given"
    return (
        f"# Handoff for {case.agent.address}\n\nAsked for by: {case.asker}\nReason: {reason}\n\n"
        f"The last {SCREEN_LINES} lines of the screen:\n\n```\n{screen}\n```\n"
    )


def write_handoff_file(town: Town, case: RequestContext) -> Path | None:
    """Put the handoff that Redis holds where the successor finds it; a restart leaves none behind.

    Raises Unknown while the disk refuses: then nobody has been touched yet.
    """
    if not case.wants_successor:
        return None
    file = handoff_file(town.settings, case.agent)
    try:
        return file if _sync_file(town, case.agent.address, file) else None
    except OSError as error:
        # Nobody has died in the middle: this is no try that counts.
        town.redis.hincrby(town.keys.progress(case.id), "tries", -1)
        raise StateUnknown(
            f"the handoff {file} cannot be written ({error}); mend that, and it goes on"
        ) from error


def _sync_file(town: Town, address: str, file: Path) -> bool:
    """Make the file say what Redis says; is there a handoff?"""
    key = town.keys.handoff(address)
    found = town.redis.get(key)
    while True:
        kept = found
        if isinstance(kept, bytes):
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomically(file, kept, 0o600)
            failpoint("handoff-written")
        else:
            file.unlink(missing_ok=True)
        # Whoever stood still before it wrote has overwritten the handoff of a later request: look again.
        found = town.redis.get(key)
        if found == kept:
            return kept is not None
