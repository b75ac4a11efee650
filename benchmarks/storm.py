"""Many requests at once."""

import time

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import in_turn, timed
from benchmarks.town import BenchTown

NAME = "storm"
MOST = 200
ROUNDS, BUDGET = 5, 20.0


def measure(bench: BenchTown) -> Figure:
    bench.serve()
    names = bench.names[:MOST]
    bare = [f"bare-{name}" for name in names]
    for name in bare:
        bench.bare.new(name)
    bench.bell.wait(bare)
    acts = (lambda: storm(bench, names), timed(lambda: bench.bare.replace(bare)))
    measured, limit = in_turn(bench.rounds(ROUNDS), *acts, budget=BUDGET, warm=False)
    for name in bare:
        bench.bare.kill(name)
    ratio, _ = ratios(measured, limit)
    what = f"{len(names)} cycles for as many agents, asked for at once, until the last successor runs"
    return Figure(
        NAME, what, measured,
        limits=(Limit("bare kill-session and new-session of as many, one after the other", limit),),
        goals=(Goal("p50 / limit", ratio, 3),),
        facts={"cycles a second": len(names) / measured.p50},
    )  # fmt: skip


def storm(bench: BenchTown, names: list[str]) -> float:
    """Send a cycle for all of these at once; return the time until the last successor rings."""
    bench.bell.clear()
    began = time.monotonic()
    ids = bench.ask(names)
    took = max(bench.bell.wait(names, deadline=300.0).values()) - began
    bench.settled(ids)
    return took
