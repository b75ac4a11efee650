"""Whose folder this is: a town's daemon serves it only on the machine and in the place it is bound to.

A copied folder has the original's agents in its records. Nothing may act on them from there.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from redis import Redis

from gastown_mail.contracts.errors import SettingsError, StateUnknown
from gastown_mail.contracts.identity import Identity, load_identity, save_identity
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.private import private_file
from gastown_mail.contracts.settings import Settings
from gastown_mail.plumbing.connections import to_str
from gastown_mail.plumbing.embedded import MAX_SOCKET_PATH, is_server_running
from gastown_mail.plumbing.locks import TownLock, file_lock
from gastown_mail.plumbing.machine import machine_digest
from gastown_mail.plumbing.private_files import prepare_private_files
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.tmux import Tmux, default_socket

_LOCK_TIMEOUT = 5.0
"""Seconds to wait while another process checks the same folder."""

_NEW_TOWN = "gastown-mail init --new-identity makes a new town of this one, without the agents of the other"


def claim_folder(settings: Settings, environ: Mapping[str, str] = os.environ) -> Identity:
    """The identity of the town's folder, made at the first start and bound to where the folder is now.

    Raises SettingsError for a copy, with the ways on.
    """
    prepare_private_files(settings.daemon_dir)
    with _lock(settings):
        found = load_identity(settings.daemon_dir)
        if reason := why_not_here(settings, found, environ):
            raise SettingsError(reason)
        return _bind(settings, found, environ)


def _lock(settings: Settings) -> AbstractContextManager[None]:
    return file_lock(private_file(settings.daemon_dir, "identity.lock"), _LOCK_TIMEOUT)


def claim_name(redis: Redis, settings: Settings) -> None:
    """Make Redis and the folder agree on which town this is. Raises SettingsError if it is another there."""
    key = Keys(settings.town_name).identity
    with _lock(settings):
        found = load_identity(settings.daemon_dir)
        redis.set(key, found.town or secrets.token_hex(16), nx=True)
        town = to_str(redis.get(key))
        if found.town and found.town != town:
            raise SettingsError(
                f"another town is called {settings.town_name} on this Redis: give this one another "
                "town_name or another redis_url in town.toml"
            )
        if not found.town:
            save_identity(settings.daemon_dir, found.model_copy(update={"town": town}))


def take_over_folder(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Bind a moved or copied folder to where it is now; return the folder that gave its agents up, or "".

    Raises SettingsError if nothing has to be taken over, or a daemon serves the other folder.
    """
    with _lock(settings):
        found = load_identity(settings.daemon_dir)
        if not why_not_here(settings, found, environ):
            raise SettingsError(
                f"{settings.town_root} is the town's folder already; gastown-mail up starts it"
            )
        original = _original(settings, found)
        if original:
            if TownLock.holder(private_file(original / "daemon", "daemon.lock")):
                raise SettingsError(f"a daemon serves {original}; run gastown-mail stop there first")
            given_up = load_identity(original / "daemon").model_copy(
                update={"moved_to": str(settings.town_root)}
            )
            save_identity(original / "daemon", given_up)
        _bind(settings, found.model_copy(update={"moved_to": ""}), environ)
        return str(original or "")


def forget_identity(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Set aside what daemon/ says of a town's agents; return where it is now, None if there was nothing.

    Raises SettingsError while a daemon serves this folder, or its agents live.
    """
    folder = settings.daemon_dir
    if not folder.is_dir():
        return None
    found = load_identity(folder)
    if TownLock.holder(settings.lock_file) or is_server_running(settings.redis_dir):
        raise SettingsError(f"a daemon serves {settings.town_root}; run gastown-mail stop first")
    if not why_not_here(settings, found, environ) and _is_served(found, environ):
        raise SettingsError(
            f"agents of this town live on the tmux server {found.tmux_socket}: end them first"
        )
    number = next(n for n in range(1, 1000) if not folder.with_name(f"daemon.original-{n}").exists())
    return folder.rename(folder.with_name(f"daemon.original-{number}"))


def why_not_here(settings: Settings, found: Identity, environ: Mapping[str, str]) -> str:
    """Why no daemon may serve this folder; "" if one may."""
    root = settings.town_root
    if found.moved_to:
        return f"{root} has given its agents to {found.moved_to}; run the daemon there. {_NEW_TOWN}"
    bound, here = found.bound_to, machine_digest()
    if bound and here and bound != here and not _is_served(found, environ):
        return (
            f"{root} belongs to another machine: it was copied, or two machines share it. A host of the same "
            "town needs a folder of its own, with a copy of town.toml and nothing of daemon/. If the other "
            f"machine is gone, gastown-mail move-town takes its town over; {_NEW_TOWN}"
        )
    if original := _original(settings, found):
        return (
            f"{root} is a copy of {original}, whose agents it would take for its own. gastown-mail move-town "
            f"makes this folder the town's; {_NEW_TOWN}"
        )
    return ""


def _original(settings: Settings, found: Identity) -> Path | None:
    """The folder that this one was copied from, if it still is the town's."""
    root = Path(found.root)
    if not found.root or root == settings.town_root:
        return None
    try:
        other = root / "daemon"
        if not other.is_dir() or other.samefile(settings.daemon_dir):
            return None
        theirs = load_identity(other)
    except OSError:
        return None
    return root if theirs.machine == found.machine and not theirs.moved_to else None


def _bind(settings: Settings, found: Identity, environ: Mapping[str, str]) -> Identity:
    folder = settings.daemon_dir.stat()
    bound = found.model_copy(
        update={
            "machine": found.machine or secrets.token_hex(16),
            "name": settings.town_name,
            "tmux_socket": _socket(settings, found, environ),
            "root": str(settings.town_root),
            "folder": f"{folder.st_dev}:{folder.st_ino}",
            "bound_to": machine_digest() or found.bound_to,
        }
    )
    if bound != found:
        save_identity(settings.daemon_dir, bound)
    return bound


def socket_of(settings: Settings, found: Identity, environ: Mapping[str, str] = os.environ) -> str:
    """The absolute path of the tmux socket: the recorded one, unless town.toml names another."""
    wanted, recorded = settings.daemon.tmux_socket, found.tmux_socket
    if recorded and wanted in (None, recorded, Path(recorded).name):
        return recorded
    name = settings.tmux_socket
    return name if name.startswith("/") else default_socket(name, environ)


def _socket(settings: Settings, found: Identity, environ: Mapping[str, str]) -> str:
    """The socket to use from now on: the recorded one as long as agents may live there.

    Raises SettingsError if its path is too long.
    """
    chosen = socket_of(settings, found, environ)
    if (size := len(os.fsencode(chosen))) > MAX_SOCKET_PATH:
        raise SettingsError(
            f"the path of the tmux socket {chosen} has {size} bytes, of {MAX_SOCKET_PATH} that are possible: "
            "set tmux_socket in town.toml to a shorter path, or choose a shorter TMUX_TMPDIR"
        )
    if found.tmux_socket in ("", chosen) or not _is_served(found, environ):
        return chosen
    return found.tmux_socket


def _is_served(found: Identity, environ: Mapping[str, str]) -> bool:
    """Whether agents of this town live, or may live, on the tmux server on record."""
    if not found.tmux_socket:
        return False
    try:
        seen = Sessions(Tmux(found.tmux_socket, environ=environ)).snapshot().values()
    except StateUnknown:
        return Path(found.tmux_socket).exists()
    return any(session.incarnation and session.town in ("", found.town) for session in seen)
