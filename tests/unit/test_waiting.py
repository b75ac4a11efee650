"""Waiting on the command line: a message only when it takes long, and always an end."""

import pytest

from gastown_mail.cli import output
from gastown_mail.cli.output import wait_for


def test_a_short_wait_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait_for(lambda: "here", "something", 5) == "here"

    assert capsys.readouterr() == ("", "")


def test_a_long_wait_is_announced_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([None] * int(3 * output._ANNOUNCE_AFTER / output._POLL))

    assert wait_for(lambda: next(looks, "here"), "something", 60) == "here"

    assert capsys.readouterr() == ("", "waiting at most 60 s for something\n")


def test_a_wait_ends_at_its_deadline() -> None:
    assert wait_for(lambda: None, "something", 0.1) is None
