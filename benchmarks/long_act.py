"""One slow cycle, and ten others that must not wait for it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Figure, Goal, Limit, Samples
from benchmarks.sampling import in_turn
from benchmarks.town import DEAF, BenchTown, address
from gastown_mail.daemon import jobs
from tests.support.wait import eventually

NAME = "storm-long-act"
WHAT = (
    "ten cycles asked for at once while an agent that ignores SIGTERM is in its 60 s of grace, the last one"
)
OTHERS = 10
ROUNDS = 4
BUDGET = 25.0


def measure(bench: BenchTown) -> Figure:
    bench.serve()
    beside, alone = list[list[float]](), list[list[float]]()

    def with_long_act() -> float:
        with a_long_act(bench):
            beside.append(delays(bench))
        return max(beside[-1])

    def without() -> float:
        alone.append(delays(bench))
        return max(alone[-1])

    jobs.serving.set(bench.town)
    started = jobs.start(address(DEAF), "the benchmark needs it", "benchmarks")
    assert started.startswith("started"), started
    measured, limit = in_turn(max(2, bench.rounds(ROUNDS)), with_long_act, without, budget=BUDGET, warm=False)
    late = worst_lateness(beside, alone)
    return Figure(
        NAME, WHAT, measured,
        limits=(Limit("the same ten without the long act", limit),),
        goals=(Goal("worst is later by", late, 1, unit="s"),),
    )  # fmt: skip


def delays(bench: BenchTown) -> list[float]:
    """Send ten cycles at once; return after how long each successor rang."""
    names = bench.names[:OTHERS]
    bench.bell.clear()
    began = time.monotonic()
    ids = bench.ask(names)
    rung = bench.bell.wait(names)
    bench.settled(ids)
    return [rung[name] - began for name in names]


def worst_lateness(beside: list[list[float]], alone: list[list[float]]) -> float:
    """Return the largest difference between an agent's median delays with and without the long act."""
    pairs = zip(zip(*beside, strict=True), zip(*alone, strict=True), strict=True)
    return max(Samples.of(late).p50 - Samples.of(usual).p50 for late, usual in pairs)


@contextmanager
def a_long_act(bench: BenchTown) -> Iterator[None]:
    """Carry out the deaf agent's cycle inside the block; then kill the agent, which ends the act."""
    town = bench.town
    session = town.sessions.find(town.roster().agents[address(DEAF)])
    assert session is not None, "the deaf agent has no session"
    ids = bench.ask([DEAF])
    eventually(lambda: town.requests.record(ids[0]).get("status") == "carrying", deadline=30.0)
    try:
        yield
        assert town.requests.record(ids[0])["status"] == "carrying", "the long act was over too soon"
    finally:
        os.kill(session.pid, signal.SIGKILL)
        bench.settled(ids)
