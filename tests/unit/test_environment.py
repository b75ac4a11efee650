"""Nothing of the starter leaks into a session, and nothing of a session into the daemon."""

import pytest

from gastown_mail.plumbing.environment import clean_environment, without_session, without_town

STARTER = {
    "HOME": "/h",
    "PATH": "/p",
    "LANG": "de_DE.UTF-8",
    "LC_TIME": "C",
    "SECRET": "1",
    "GASTOWN_INCARNATION": "x",
    "GASTOWN_TOWN": "/town",
    "GT_ROLE": "mayor",
    "TMUX": "/tmp/s,1,0",
    "TMUX_PANE": "%3",
    "TMUX_TMPDIR": "/run/tmux",
    "CLAUDECODE": "1",
}


def test_only_allowed_variables_of_the_starter_reach_tmux() -> None:
    assert clean_environment(STARTER) == {
        "HOME": "/h",
        "PATH": "/p",
        "LANG": "de_DE.UTF-8",
        "LC_TIME": "C",
        "TMUX_TMPDIR": "/run/tmux",
        "TERM": "xterm",
    }


@pytest.mark.parametrize(
    "environ", [{}, {"LANG": "C"}, {"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, {"LC_ALL": ""}]
)
def test_the_locale_is_always_utf8(environ: dict[str, str]) -> None:
    cleaned = clean_environment(environ)

    assert "LC_ALL" not in cleaned or cleaned["LC_ALL"] == ""
    assert cleaned["LC_CTYPE"].endswith("UTF-8")


@pytest.mark.parametrize("environ", [{"LANG": "C.utf8"}, {"LC_ALL": "en_US.UTF-8", "LANG": "C"}])
def test_a_locale_that_is_utf8_stays(environ: dict[str, str]) -> None:
    assert clean_environment(environ).items() >= environ.items()


def test_what_a_session_added_is_taken_away_and_nothing_else() -> None:
    left = without_session(STARTER)

    assert set(STARTER.items()) - set(left.items()) == {("GASTOWN_INCARNATION", "x"), ("GT_ROLE", "mayor")}


def test_outside_a_session_the_same_variables_are_the_users_own() -> None:
    users = {"GASTOWN_AGENT": "mayor/", "GASTOWN_REDIS_URL": "redis://here", "GT_ROLE": "mayor"}

    assert without_session(users) == users


def test_the_variables_of_another_town_and_of_tmux_are_removed() -> None:
    assert without_town(STARTER).keys() == {
        "HOME", "PATH", "LANG", "LC_TIME", "SECRET", "TMUX_TMPDIR", "CLAUDECODE",
    }  # fmt: skip
