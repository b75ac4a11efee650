from gastown_mail.contracts import errors
from gastown_mail.contracts.errors import GastownError, InvalidRequest, TownLocked

CLASSES = [each for each in vars(errors).values() if isinstance(each, type)]
FAMILY = [each for each in CLASSES if issubclass(each, GastownError)]


def test_every_error_has_the_base_class_and_says_what_to_do() -> None:
    assert len(FAMILY) > 10
    assert FAMILY == CLASSES
    assert all(each.__doc__ for each in FAMILY)


def test_exit_codes_are_the_documented_ones() -> None:
    special = {each.__name__: each.exit_code for each in FAMILY if each.exit_code != 1}
    assert special == {
        "SettingsError": 2,
        "RedisUnavailable": 3,
        "RequestNotAccepted": 3,
        "TownLocked": 4,
        "TmuxMissing": 5,
    }


def test_errors_carry_what_their_readers_need() -> None:
    bad = InvalidRequest("not JSON", b"\xff")
    assert (str(bad), bad.reason, bad.raw) == ("not JSON", "not JSON", b"\xff")
    assert TownLocked("held by 7", pid=7).pid == 7
    assert TownLocked("held").pid is None
