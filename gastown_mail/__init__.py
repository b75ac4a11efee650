"""Renews and wakes AI coding agents in tmux sessions: a dependable lifecycle daemon on Redis and rq.

The names below are public. Each is loaded on first use, so an agent that only sends a request loads no
more than it needs.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gastown_mail.contracts.errors import (
        AddressError,
        GastownError,
        InvalidRequest,
        Postponed,
        ProcessesSurvived,
        RedisUnavailable,
        RequestNotAccepted,
        SessionNotManaged,
        SettingsError,
        StartFailed,
        StateFileError,
        StateUnknown,
        TmuxMissing,
        TownLocked,
    )
    from gastown_mail.contracts.lifecycle import LifecycleAction
    from gastown_mail.contracts.request import LifecycleRequest
    from gastown_mail.contracts.state import Config, State, default_config, load_state, save_state, state_file
    from gastown_mail.mail.send import Receipt, send_lifecycle

__all__ = [
    "AddressError",
    "Config",
    "GastownError",
    "InvalidRequest",
    "LifecycleAction",
    "LifecycleRequest",
    "Postponed",
    "ProcessesSurvived",
    "Receipt",
    "RedisUnavailable",
    "RequestNotAccepted",
    "SessionNotManaged",
    "SettingsError",
    "StartFailed",
    "State",
    "StateFileError",
    "StateUnknown",
    "TmuxMissing",
    "TownLocked",
    "default_config",
    "load_state",
    "save_state",
    "send_lifecycle",
    "state_file",
]

_HOME = {
    "Config": "contracts.state",
    "default_config": "contracts.state",
    "LifecycleAction": "contracts.lifecycle",
    "LifecycleRequest": "contracts.request",
    "State": "contracts.state",
    "load_state": "contracts.state",
    "save_state": "contracts.state",
    "state_file": "contracts.state",
    "Receipt": "mail.send",
    "send_lifecycle": "mail.send",
}


_RENAMED = {
    "NotAccepted": "RequestNotAccepted",
    "NotOurs": "SessionNotManaged",
    "SurvivorsLeft": "ProcessesSurvived",
    "TownHeld": "TownLocked",
    "UndecodableElement": "InvalidRequest",
    "Unknown": "StateUnknown",
}
"""Names from the previous release that still work."""


def __getattr__(name: str) -> Any:
    if new := _RENAMED.get(name):
        warnings.warn(f"gastown_mail.{name} is now gastown_mail.{new}", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'contracts.errors')}"), name)
    globals()[name] = value
    return value
