"""Waiting on the command line: words only where it takes long, and an end in any case."""

import pytest

from gastown_mail.cli import output
from gastown_mail.cli.output import wait_for


def test_what_comes_at_once_needs_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait_for(lambda: "here", "something", 5) == "here"

    assert capsys.readouterr() == ("", "")


def test_what_takes_long_is_said_once_and_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([None] * int(3 * output._ANNOUNCE_AFTER / output._POLL))

    assert wait_for(lambda: next(looks, "here"), "something", 60) == "here"

    assert capsys.readouterr() == ("", "waiting at most 60 s for something\n")


def test_what_does_not_come_is_not_waited_for_for_ever() -> None:
    assert wait_for(lambda: None, "something", 0.1) is None
