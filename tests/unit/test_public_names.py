"""The package's public names, and the former ones, which still work and warn with the new name."""

import pytest

import gastown_mail

RENAMED = {
    "NotAccepted": "RequestNotAccepted",
    "NotOurs": "SessionNotManaged",
    "SurvivorsLeft": "ProcessesSurvived",
    "TownHeld": "TownLocked",
    "UndecodableElement": "InvalidRequest",
    "Unknown": "StateUnknown",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_the_new_class_and_warns_every_time(old: str, new: str) -> None:
    for _ in range(2):
        with pytest.warns(DeprecationWarning, match=f"{old} is now gastown_mail.{new}"):
            assert getattr(gastown_mail, old) is getattr(gastown_mail, new)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        gastown_mail.Nothing  # noqa: B018


def test_the_old_name_of_a_property_warns_too() -> None:
    request = gastown_mail.LifecycleRequest(sender="mayor/", action="cycle", timestamp="2025-12-20T10:12:21Z")  # type: ignore[arg-type]

    with pytest.warns(DeprecationWarning, match="latest is now LifecycleRequest.latest_timestamp"):
        assert request.latest == request.latest_timestamp
