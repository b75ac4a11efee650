"""The handoff: what a cycled session leaves its successor, first in Redis, then in a file.

Redis holds it from the moment of the intent; the file is what the successor reads
(docs/reference/contract.md#files).
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

_SCREEN_LINES = 50


def handoff_file(settings: Settings, agent: Agent) -> Path:
    """The path of the handoff for the agent's successor."""
    return settings.handoff_dir / f"{agent.session}.md"


def handoff_text(town: Town, context: RequestContext, target: Session | None) -> str:
    """The agent's own words, else a short note: the asker, the reason, and the end of the screen."""
    if context.request.action is not LifecycleAction.CYCLE:
        return ""
    if context.request.handoff:
        return context.request.handoff
    screen = town.sessions.capture_screen(target, _SCREEN_LINES) if target else ""
    reason = context.request.reason or "none given"
    return (
        f"# Handoff for {context.agent.address}\n\nAsked for by: {context.asker}\nReason: {reason}\n\n"
        f"The last {_SCREEN_LINES} lines of the screen:\n\n```\n{screen}\n```\n"
    )


def write_handoff_file(town: Town, context: RequestContext) -> Path | None:
    """Write the handoff that Redis holds to its file; without one, remove the file of an earlier cycle.

    Raises StateUnknown when the disk refuses; no session has been touched then.
    """
    if not context.wants_successor:
        return None
    file, key = handoff_file(town.settings, context.agent), town.keys.handoff(context.agent.address)
    stored = town.redis.get(key)
    try:
        while True:
            written = stored
            if isinstance(written, bytes):
                file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                write_atomically(file, written, 0o600)
                failpoint("handoff-written")
            else:
                file.unlink(missing_ok=True)
            # a worker that was stopped before its write may have overwritten a later handoff: compare again
            stored = town.redis.get(key)
            if stored == written:
                return None if written is None else file
    except OSError as error:
        # no worker has died in the middle: this attempt does not count
        town.redis.hincrby(town.keys.progress(context.id), "tries", -1)
        raise StateUnknown(
            f"the handoff {file} cannot be written ({error}); repair that, and the request goes on"
        ) from error
