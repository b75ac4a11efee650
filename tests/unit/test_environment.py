"""Nothing of the starter leaks into a session, and nothing of a session into the daemon."""

import subprocess
import sys
from pathlib import Path

import pytest

from gastown_mail.plumbing.environment import (
    clean_environment,
    own_command,
    passed_environment,
    with_folder_of,
    without_session,
    without_town,
)

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


def test_what_the_agents_own_settings_add_is_taken_away_but_not_what_every_program_needs() -> None:
    left = without_session(STARTER, own={"SECRET": "1", "PATH": "/p"})

    assert "SECRET" not in left
    assert left["PATH"] == "/p"
    outside = {"SECRET": "1"}
    assert without_session(outside, own=["SECRET"]) == outside


def test_outside_a_session_the_same_variables_are_the_users_own() -> None:
    users = {"GASTOWN_AGENT": "mayor/", "GASTOWN_REDIS_URL": "redis://here", "GT_ROLE": "mayor"}

    assert without_session(users) == users


def test_the_variables_of_another_town_and_of_tmux_are_removed() -> None:
    assert without_town(STARTER).keys() == {
        "HOME", "PATH", "LANG", "LC_TIME", "SECRET", "TMUX_TMPDIR", "CLAUDECODE",
    }  # fmt: skip


URL = "redis://daemon:se%2Fcret@redis:6379/0"
DAEMONS = {
    "API_KEY": "k",
    "API_KEYS": "many",
    "HTTPS_PROXY": "http://me:mine@proxy:80",
    "OTHER": "1",
    "GASTOWN_REDIS_URL": URL,
    "GT_ROLE": "mayor",
    "TMUX_TMPDIR": "/run/tmux",
    "RQ_REDIS_URL": "redis://elsewhere",
    "MY_REDIS": "redis://daemon:se/cret@localhost",
    "REDISCLI_AUTH": "se/cret",
    "TERM": "dumb",
    "PWD": "/",
    "LC_ALL": "C",
    "PATH": "/daemons",
}


@pytest.mark.parametrize(
    ("names", "passed"),
    [
        ((), set()),
        (("API_KEY",), {"API_KEY"}),
        (("API_*", "HTTPS_PROXY"), {"API_KEY", "API_KEYS", "HTTPS_PROXY"}),
        (("API", "api_key", "MISSING"), set()),
        (("*",), {"API_KEY", "API_KEYS", "HTTPS_PROXY", "OTHER"}),
        (("GASTOWN_REDIS_URL", "GT_*", "TMUX*", "RQ_REDIS_URL", "REDISCLI_AUTH", "MY_REDIS"), set()),
    ],
)
def test_only_named_variables_are_passed_and_never_a_secret_of_the_daemon(
    names: tuple[str, ...], passed: set[str]
) -> None:
    assert passed_environment(DAEMONS, names, URL) == {name: DAEMONS[name] for name in passed}


def test_the_password_of_the_sentinels_is_not_passed() -> None:
    url = "sentinel://u:main@a:1,b:2/town?sentinel_password=s%40fe"
    environ = {"A": "main", "B": "s@fe", "C": "redis://u:main@a/0", "D": "kept"}

    assert passed_environment(environ, ["*"], url) == {"D": "kept"}


def test_without_a_password_nothing_is_taken_for_one() -> None:
    assert passed_environment({"EMPTY": "", "URL": "http://:@x"}, ["*"], "unix:///s") == {
        "EMPTY": "", "URL": "http://:@x",
    }  # fmt: skip


def test_a_daemon_in_a_session_passes_nothing_of_that_sessions_agent() -> None:
    assert passed_environment(DAEMONS | {"GASTOWN_INCARNATION": "x"}, ["*"], URL) == {}


def test_our_own_command_is_the_one_of_this_python() -> None:
    command = own_command({"PATH": "/nowhere"})

    assert Path(command).parent == Path(sys.executable).parent
    assert subprocess.run([command, "--version"], capture_output=True, timeout=30).returncode == 0


def test_our_own_command_can_be_given_but_not_by_a_session() -> None:
    given = {"GASTOWN_MAIL": "gastown-mail"}

    assert own_command(given) == "gastown-mail"
    assert own_command(given | {"GASTOWN_INCARNATION": "x"}) == own_command({})


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        ("/opt/bin/gastown-mail", "/usr/bin:/bin", "/usr/bin:/bin:/opt/bin"),
        ("/opt/bin/gastown-mail", "/opt/bin:/bin", "/opt/bin:/bin"),
        ("/opt/bin/gastown-mail", "", "/opt/bin"),
        ("gastown-mail", "/bin", "/bin"),
        ("", "/bin", "/bin"),
    ],
)
def test_the_commands_folder_is_last_on_the_path(command: str, path: str, expected: str) -> None:
    assert with_folder_of(command, path) == expected
