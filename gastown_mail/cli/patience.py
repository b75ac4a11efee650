"""Waiting on the command line: with a deadline, and saying what for when it takes longer than a glance."""

import time
from collections.abc import Callable
from typing import TypeVar

import click

SAY_AFTER = 1.0
"""Seconds of silence; what comes sooner needs no words."""

LOOK_PAUSE = 0.05

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, seconds: float) -> T | None:
    """The condition's first true value, None when none came within `seconds`.

    `what` is said on stderr, so that nobody sits before a silent command.
    """
    began, said = time.monotonic(), False
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            return None
        if waited > SAY_AFTER and not said:
            said = True
            announce_wait(what, seconds)
        time.sleep(LOOK_PAUSE)
    return value


def announce_wait(what: str, seconds: float) -> None:
    """Tell on stderr what is waited for, and how long at most."""
    click.echo(f"waiting at most {seconds:.0f} s for {what}", err=True)
