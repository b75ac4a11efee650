"""The public Python interface, as literals (see `test_pinned_words.py`)."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import gastown_mail

ERRORS = {
    "GastownError": ("Exception", 1),
    "SettingsError": ("GastownError", 2),
    "AddressError": ("GastownError", 1),
    "InvalidRequest": ("GastownError", 1),
    "StateFileError": ("GastownError", 1),
    "RedisUnavailable": ("GastownError", 3),
    "RequestNotAccepted": ("RedisUnavailable", 3),
    "TownLocked": ("GastownError", 4),
    "StateUnknown": ("GastownError", 1),
    "Postponed": ("GastownError", 1),
    "TmuxMissing": ("StateUnknown", 5),
    "SessionNotManaged": ("GastownError", 1),
    "StartFailed": ("GastownError", 1),
    "ProcessesSurvived": ("GastownError", 1),
}
"""The public errors, the base class of each, and the exit code of a command that it ends.

`test_public_names.py` has their former names.
"""

FUNCTIONS = {
    "send_lifecycle": "action, *, agent=None, to=None, reason='', handoff='', redis_url=None, town=None,"
    " request_id=None, environ",
    "load_state": "town_root",
    "save_state": "town_root, state",
    "state_file": "town_root",
    "default_config": "town_root",
}

CLASSES = {
    "Receipt": "id redis_url town epoch status() detail() wait(timeout)",
    "LifecycleAction": "CYCLE RESTART SHUTDOWN",
    "LifecycleRequest": "sender action timestamp id to incarnation reason handoff clock encode() latest"
    " latest_timestamp target",
    "State": "running pid started_at last_heartbeat heartbeat_count encode() decode(text)"
    " to_mapping() from_mapping(fields)",
    "Config": "heartbeat_interval town_root log_file pid_file encode() decode(text)",
}
"""The other public names, and what each offers."""


def test_the_public_names() -> None:
    assert sorted(gastown_mail.__all__) == sorted([*ERRORS, *FUNCTIONS, *CLASSES])


@pytest.mark.parametrize("name", ERRORS)
def test_a_public_error_keeps_its_kind_and_its_exit_code(name: str) -> None:
    error = getattr(gastown_mail, name)
    kind, exit_code = ERRORS[name]

    assert error.__bases__ == (getattr(gastown_mail, kind, Exception),)
    assert error.exit_code == exit_code


def test_what_errors_carry() -> None:
    invalid = gastown_mail.InvalidRequest("why", b"raw")
    locked = gastown_mail.TownLocked("why", 7)

    assert (invalid.reason, invalid.raw, locked.pid) == ("why", b"raw", 7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_keeps_its_parameters(name: str) -> None:
    assert parameters(getattr(gastown_mail, name)) == FUNCTIONS[name]


def parameters(function: Callable[..., Any]) -> str:
    """Return the parameters with their plain defaults, without `self` and types."""
    signature = inspect.signature(function)
    kept = [
        each.replace(annotation=inspect.Parameter.empty, default=plain(each.default))
        for name, each in signature.parameters.items()
        if name != "self"
    ]
    return str(inspect.Signature(kept)).strip("()")


def plain(default: object) -> object:
    """Return a default that is a text or None; any other is left out."""
    return default if default is None or isinstance(default, str) else inspect.Parameter.empty


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_offers_what_it_did(name: str) -> None:
    kind = getattr(gastown_mail, name)
    fields = [*getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "model_fields", ())]
    offered = {word.partition("(")[0]: word for word in CLASSES[name].split()}

    for word, spelled in offered.items():
        member = getattr(kind, word, None)
        assert word in fields or member is not None, word
        if spelled.endswith(")"):
            assert member is not None
            assert f"{word}({parameters(member)})" == spelled
    assert set(fields) <= set(offered)
