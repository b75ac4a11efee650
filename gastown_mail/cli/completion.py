"""What the shell completes: the agents' addresses, and words. It needs no Redis, and shows no error."""

import os
from collections.abc import Callable
from pathlib import Path

import click


def complete_agents(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The agents' addresses that begin like this; none where the town cannot be read."""
    try:
        return [address for address in _known(context) if address.startswith(incomplete)]
    except Exception:
        return []


def complete_words(*known: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What completes to those of `known` that begin like what is there."""
    return lambda _, __, incomplete: [str(word) for word in known if word.startswith(incomplete)]


def _known(context: click.Context) -> list[str]:
    # only when somebody completes: `send` pays for no more than it needs
    from gastown_mail.contracts.settings import find_town, load_settings
    from gastown_mail.daemon.roster import load_roster

    said = context.params.get("town") or context.find_root().params.get("town")
    environ = {**os.environ, **({"GASTOWN_TOWN": said} if said else {})}
    return list(load_roster(load_settings(find_town(Path.cwd(), environ), environ=environ)).agents)
