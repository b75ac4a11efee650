"""Environments for child processes: without secrets, and without a session's or a town's variables."""

import os
import re
import sys
from collections.abc import Mapping

_ALLOWED = frozenset("HOME PATH SHELL USER LOGNAME LANG TZ TMPDIR TMUX_TMPDIR XDG_RUNTIME_DIR TERM".split())
_SESSION = frozenset(
    "GASTOWN_AGENT GASTOWN_HANDOFF GASTOWN_INCARNATION GASTOWN_REDIS_URL GASTOWN_TOWN_NAME GT_ROLE".split()
)
"""What a session adds (docs/reference/contract.md#session-environment); the daemon must not have it."""

_UTF8 = re.compile(r"utf-?8", re.IGNORECASE)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what tmux and every session may see of `environ`: no identity or secrets, a UTF-8 locale."""
    kept = {key: value for key, value in environ.items() if key in _ALLOWED or key.startswith("LC_")}
    kept = {"PATH": os.defpath, "TERM": "xterm"} | kept
    if _UTF8.search(kept.get("LC_ALL") or kept.get("LC_CTYPE") or kept.get("LANG") or ""):
        return kept
    kept.pop("LC_ALL", None)
    return kept | {"LC_CTYPE": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"}


def without_session(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without what an agent's session added; unchanged outside a session."""
    added = _SESSION if "GASTOWN_INCARNATION" in environ else frozenset[str]()
    return {key: value for key, value in environ.items() if key not in added}


def without_town(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without any town's variables and tmux's, except TMUX_TMPDIR."""
    return {
        key: value
        for key, value in environ.items()
        if key == "TMUX_TMPDIR" or not key.startswith(("GASTOWN_", "GT_", "TMUX"))
    }
