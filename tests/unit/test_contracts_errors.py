import inspect

from gastown_mail.contracts import errors
from gastown_mail.contracts.errors import GastownError, TownHeld, UndecodableElement

FAMILY = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__
]


def test_every_error_is_of_the_family_and_says_what_to_do() -> None:
    assert all(issubclass(each, GastownError) for each in FAMILY)
    assert all(inspect.getdoc(each) for each in FAMILY)


def test_exit_codes_are_those_of_the_contract() -> None:
    special = {each.__name__: each.exit_code for each in FAMILY if each.exit_code != 1}
    assert special == {
        "SettingsError": 2,
        "RedisUnavailable": 3,
        "NotAccepted": 3,
        "TownHeld": 4,
        "TmuxMissing": 5,
    }


def test_errors_carry_what_their_readers_need() -> None:
    bad = UndecodableElement("not JSON", b"\xff")
    assert (str(bad), bad.reason, bad.raw) == ("not JSON", "not JSON", b"\xff")
    assert TownHeld("held by 7", pid=7).pid == 7
    assert TownHeld("held").pid is None
