"""Taking samples of a measure and its limits in turn, so that a busy moment affects both."""

import time
from collections.abc import Callable

from benchmarks.figures import Samples

Act = Callable[[], float]
"""Does one thing and returns what it took, in seconds."""


REST = 0.02
"""Seconds before each act, for the machine to finish what the last one left."""


def in_turn(rounds: int, *acts: Act, budget: float, rest: float = REST, warm: bool = True) -> list[Samples]:
    """Do the acts in turn, A B A B, and return the samples of each.

    `rounds` is the most; a further round begins only within `budget` seconds. `warm`: one more round comes
    first and does not count.
    """
    if warm:
        for act in acts:
            act()
    taken: list[list[float]] = [[] for _ in acts]
    until = time.monotonic() + budget
    for number in range(rounds):
        if number and time.monotonic() > until:
            break
        for act, values in zip(acts, taken, strict=True):
            time.sleep(rest)
            values.append(act())
    return [Samples.of(values) for values in taken]


def timed(act: Callable[[], object]) -> Act:
    """Return an act that measures the time of a call."""

    def run() -> float:
        began = time.monotonic()
        act()
        return time.monotonic() - began

    return run


class Pause:
    """Sleeps, and adds up how long it really slept."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self, seconds: float) -> None:
        began = time.monotonic()
        time.sleep(seconds)
        self.slept += time.monotonic() - began

    def timed(self, act: Callable[[], object]) -> Act:
        """Return an act that measures the time of a call without this pause's sleep."""

        def run() -> float:
            began, before = time.monotonic(), self.slept
            act()
            return time.monotonic() - began - (self.slept - before)

        return run
