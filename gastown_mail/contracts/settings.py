"""A town's settings: arguments, then the environment, then `town.toml`, then defaults.

The keys: docs/reference/contract.md#settings. Files under the town's root:

| file                        | holds                                                                   |
|-----------------------------|-------------------------------------------------------------------------|
| town.toml                   | the settings; the daemon never writes it                                |
| mayor/rigs.json             | the town's rigs, if it exists; the daemon never writes it               |
| daemon/state.json           | running, pid, started_at, last_heartbeat, heartbeat_count               |
| daemon/daemon.pid           | the daemon's pid, while one runs                                        |
| daemon/handoff/<session>.md | the handoff for the successor of that session                           |
| daemon/redis/               | the embedded server's socket, log, lock and append-only file            |
| daemon/private/             | mode 0700; the files below                                              |
| daemon/private/daemon.lock  | locked while a daemon runs; never deleted                               |
| daemon/private/daemon.log   | the log; rotated files are beside it, numbered                          |
| …/desired.json, .lock       | desired state of each agent; used to recover if Redis is flushed        |
| …/identity.json, .lock      | which town this folder is, and the machine it is bound to               |
| …/revision.json             | how far this host has seen Redis: tells when it comes back older        |
| …/state.lock                | locked while state.json is written                                      |
"""

import hashlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gastown_mail.contracts.address import ADDRESS_PATTERN, CUSTOM_ROLE, NAME_PATTERN, ROLES
from gastown_mail.contracts.errors import SettingsError, StateFileError
from gastown_mail.contracts.identity import load_identity
from gastown_mail.contracts.lifecycle import OPERATOR
from gastown_mail.contracts.private import private_file
from gastown_mail.contracts.profile import Profile
from gastown_mail.contracts.settings_model import DaemonSettings, RoleSettings
from gastown_mail.contracts.toml_file import TomlFile, read_toml
from gastown_mail.contracts.validation import field_errors, quote_value, unknown_key_message

__all__ = ["DaemonSettings", "RoleSettings", "Settings", "find_town", "load_settings", "town_name"]

TOWN_FILE = "town.toml"
_NOTHING: Mapping[str, object] = MappingProxyType({})
_M = TypeVar("_M", bound=BaseModel)
_KeyPath = tuple[str, ...]


class Settings(BaseModel):
    """The settings of one town; `town_root` is absolute and without symbolic links."""

    model_config = ConfigDict(frozen=True)

    town_root: Path
    town_name: str
    daemon: DaemonSettings = DaemonSettings()
    roles: Mapping[str, RoleSettings] = {}
    agents: Mapping[str, RoleSettings] = {}
    """By address, as spelled in `town.toml`."""
    programs: Mapping[str, Profile] = {}
    """The town's own profiles, by name."""
    machine: str = Field(default_factory=socket.gethostname)
    """The machine's host name, the default for `host`."""

    @property
    def daemon_dir(self) -> Path:
        return self.town_root / "daemon"

    @property
    def log_file(self) -> Path:
        return self.town_root / (self.daemon.log_file or private_file(self.daemon_dir, "daemon.log"))

    @property
    def pid_file(self) -> Path:
        return self.town_root / (self.daemon.pid_file or self.daemon_dir / "daemon.pid")

    @property
    def lock_file(self) -> Path:
        return private_file(self.daemon_dir, "daemon.lock")

    @property
    def redis_dir(self) -> Path:
        """The embedded server's folder."""
        return self.daemon_dir / "redis"

    @property
    def handoff_dir(self) -> Path:
        return self.daemon_dir / "handoff"

    @property
    def tmux_socket(self) -> str:
        """A name (`tmux -L`) or an absolute path (`tmux -S`); the default differs between towns."""
        digest = hashlib.sha256(os.fsencode(self.town_root)).hexdigest()
        return self.daemon.tmux_socket or f"gastown-{self.town_name}-{digest[:6]}"

    @property
    def host(self) -> str:
        """The name under which this machine's workers serve."""
        return self.daemon.host or re.sub(r"[^A-Za-z0-9._-]", "-", self.machine) or "localhost"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    town_name: str | None = Field(default=None, min_length=1, description="a name")
    daemon: dict[str, Any] = Field(default={}, description="a table [daemon]")
    roles: dict[str, dict[str, Any]] = Field(default={}, description="tables such as [roles.crew]")
    agents: dict[str, dict[str, Any]] = Field(default={}, description='tables such as [agents."mayor/"]')
    programs: dict[str, dict[str, Any]] = Field(default={}, description="tables such as [programs.claude]")


def load_settings(
    town_root: Path, *, arguments: Mapping[str, object] = _NOTHING, environ: Mapping[str, str]
) -> Settings:
    """The settings of the town in this folder; each key of `arguments` is one of `[daemon]`.

    Arguments that are None and empty variables are ignored. Raises SettingsError for an unknown key or a
    bad value in any source, even if another source overrides it.
    """
    if not _exists(town_root, Path.is_dir):
        raise SettingsError(f"{town_root} is not a folder; gastown-mail init makes a town")
    root = town_root.resolve()
    file = read_toml(root / TOWN_FILE)
    document = _validate(_Document, file.values, lambda path: f"{file.location_of(*path)}: {'.'.join(path)}")
    return Settings(
        town_root=root,
        town_name=town_name(root, document.town_name or _name_at_first_start(root)),
        daemon=_daemon(file, document.daemon, arguments, environ),
        roles={role: _role(file, role, table) for role, table in document.roles.items()},
        agents={address: _agent(file, address, table) for address, table in document.agents.items()},
        programs={name: _program(file, name, table) for name, table in document.programs.items()},
    )


def find_town(start: Path, environ: Mapping[str, str]) -> Path:
    """The root of the town that `start` is in: `GASTOWN_TOWN`, or the nearest folder with `town.toml`.

    Raises SettingsError if there is none.
    """
    if named := environ.get("GASTOWN_TOWN"):
        if not _exists(start / named, Path.is_dir):
            raise SettingsError(f"GASTOWN_TOWN = {quote_value(named)}: expected a folder that exists")
        return (start / named).resolve()
    folder = start.resolve()
    for parent in (folder, *folder.parents):
        if _exists(parent / TOWN_FILE, Path.is_file):
            return parent
    raise SettingsError(
        f"no {TOWN_FILE} in {folder} or above: "
        "give --town or GASTOWN_TOWN, or make one with gastown-mail init"
    )


def town_name(town_root: Path, declared: str | None) -> str:
    """The town's name: declared, or the folder's; in lower case, with `-` for all but `[a-z0-9-]`."""
    name = re.sub(r"[^a-z0-9-]", "-", (declared or town_root.name).lower())
    if not name:
        raise SettingsError(f"{town_root} gives the town no name: set town_name in {TOWN_FILE}")
    return name


def _name_at_first_start(root: Path) -> str | None:
    try:
        return load_identity(root / "daemon").name or None
    except StateFileError as error:
        raise SettingsError(str(error)) from None


def _daemon(
    file: TomlFile, table: Mapping[str, object], arguments: Mapping[str, object], environ: Mapping[str, str]
) -> DaemonSettings:
    variables = {key: environ.get(f"GASTOWN_{key.upper()}") for key in DaemonSettings.model_fields}
    from_environ = {key: text for key, text in variables.items() if text}
    given = {key: value for key, value in arguments.items() if value is not None}
    _validate(DaemonSettings, table, lambda path: f"{file.location_of('daemon', *path)}: [daemon] {path[0]}")
    _validate(DaemonSettings, from_environ, lambda path: f"GASTOWN_{path[0].upper()}")
    _validate(DaemonSettings, given, lambda path: f"argument {path[0]}")
    return DaemonSettings.model_validate({**table, **from_environ, **given})


def _role(file: TomlFile, role: str, table: Mapping[str, object]) -> RoleSettings:
    known = (*ROLES, CUSTOM_ROLE)
    if role not in known:
        message = unknown_key_message("a role", role, known)
        raise SettingsError(f"{file.location_of('roles', role)}: [roles.{role}] {message}")
    return _overrides(file, ("roles", role), f"[roles.{role}]", table)


def _agent(file: TomlFile, address: str, table: Mapping[str, object]) -> RoleSettings:
    header = f"[agents.{quote_value(address)}]"
    if not ADDRESS_PATTERN.match(address) or address.strip("/") == OPERATOR:
        expected = "expected an address such as gastown/crew/max, from A-Z a-z 0-9 _ - and /"
        raise SettingsError(
            f"{file.location_of('agents', address)}: {header} is not an address: {expected}, not operator"
        )
    return _overrides(file, ("agents", address), header, table)


def _program(file: TomlFile, name: str, table: Mapping[str, object]) -> Profile:
    header = f"[programs.{name}]"
    if not NAME_PATTERN.match(name):
        raise SettingsError(
            f"{file.location_of('programs', name)}: {header} is not a name: expected A-Z a-z 0-9 _ -"
        )
    return _validate(
        Profile, table, lambda path: f"{file.location_of('programs', name, *path)}: {header} {'.'.join(path)}"
    )


def _overrides(file: TomlFile, place: _KeyPath, header: str, table: Mapping[str, object]) -> RoleSettings:
    return _validate(
        RoleSettings, table, lambda path: f"{file.location_of(*place, *path)}: {header} {'.'.join(path)}"
    )


def _validate(model: type[_M], values: Mapping[str, object], named: Callable[[_KeyPath], str]) -> _M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = field_errors(error, model)
        raise SettingsError("\n".join(f"{named(path)} {text}" for path, text in errors)) from None


def _exists(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # an unreadable folder
        return False
