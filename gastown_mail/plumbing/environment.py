"""Environments for child processes: without secrets, and without a session's or a town's variables."""

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

COMMAND = "gastown-mail"

_ALLOWED = frozenset("HOME PATH SHELL USER LOGNAME LANG TZ TMPDIR TMUX_TMPDIR XDG_RUNTIME_DIR TERM".split())
_SESSION = frozenset(
    (
        "GASTOWN_AGENT GASTOWN_HANDOFF GASTOWN_INCARNATION GASTOWN_MAIL GASTOWN_REDIS_URL GASTOWN_TOWN_NAME"
        " GT_ROLE"
    ).split()
)
"""What a session adds (docs/reference/contract.md#session-environment); the daemon must not have it."""

_OF_THIS_PROCESS = frozenset("PWD OLDPWD SHLVL COLUMNS LINES _".split())
_NEVER_PASSED = ("GASTOWN_", "GT_", "TMUX", "RQ_")
"""The daemon's own settings, those of rq, and the terminal's; some hold a password."""

_UTF8 = re.compile(r"utf-?8", re.IGNORECASE)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what tmux and every session may see of `environ`: no identity or secrets, a UTF-8 locale."""
    kept = {key: value for key, value in environ.items() if key in _ALLOWED or key.startswith("LC_")}
    kept = {"PATH": os.defpath, "TERM": "xterm"} | kept
    if _UTF8.search(kept.get("LC_ALL") or kept.get("LC_CTYPE") or kept.get("LANG") or ""):
        return kept
    kept.pop("LC_ALL", None)
    return kept | {"LC_CTYPE": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"}


def without_session(environ: Mapping[str, str], own: Iterable[str] = ()) -> dict[str, str]:
    """Return `environ` without what an agent's session added; unchanged outside a session.

    `own` names the variables that the agent's settings add; those that every program needs stay.
    """
    added = _SESSION | (frozenset(own) - _ALLOWED) if "GASTOWN_INCARNATION" in environ else frozenset[str]()
    return {key: value for key, value in environ.items() if key not in added}


def without_town(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without any town's variables and tmux's, except TMUX_TMPDIR."""
    return {
        key: value
        for key, value in environ.items()
        if key == "TMUX_TMPDIR" or not key.startswith(("GASTOWN_", "GT_", "TMUX"))
    }


def passed_environment(environ: Mapping[str, str], names: Iterable[str], redis_url: str) -> dict[str, str]:
    """The variables of `environ` with these names, or with these beginnings if they end with `*`.

    Left out are what every session gets anyway, the daemon's own variables, and what holds the password of
    `redis_url`. A daemon that runs in an agent's session passes nothing: it has what that agent got.
    """
    if "GASTOWN_INCARNATION" in environ:
        return {}
    listed = tuple(names)
    exact = frozenset(listed)
    beginnings = tuple(name.removesuffix("*") for name in listed if name.endswith("*"))
    parts = urlsplit(redis_url)
    options = dict(parse_qsl(parts.query))
    passwords = [parts.password or "", *(options.get(name, "") for name in ("password", "sentinel_password"))]
    return {
        name: value
        for name, value in environ.items()
        if (name in exact or name.startswith(beginnings))
        and not (name in _ALLOWED or name in _OF_THIS_PROCESS or name.startswith(("LC_", *_NEVER_PASSED)))
        and not any(_holds(password, value) for password in passwords)
    }


def _holds(password: str, value: str) -> bool:
    """Whether the value is this password, or a URL with it."""
    spellings = {password, unquote(password)} - {""}
    return any(value == text or f":{text}@" in value for text in spellings)


def own_command(environ: Mapping[str, str] = os.environ) -> str:
    """The path of the `gastown-mail` that belongs to this Python; "" when there is none.

    `GASTOWN_MAIL` takes precedence, whatever it says: agents may live where this process cannot look.
    """
    if given := without_session(environ).get("GASTOWN_MAIL"):
        return given
    folders = [
        str(Path(sys.executable).parent),
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
    ]
    found = (shutil.which(COMMAND, path=folder) for folder in folders if folder)
    path = next(filter(None, found), None) or shutil.which(COMMAND, path=environ.get("PATH"))
    return str(Path(path).absolute()) if path else ""


def with_folder_of(command: str, path: str) -> str:
    """This PATH, with the command's folder at its end unless it is on it; a bare name has none."""
    folder = str(Path(command).parent)
    if not command.startswith("/") or folder in path.split(os.pathsep):
        return path
    return f"{path}{os.pathsep}{folder}" if path else folder
