"""Many requests at once."""

import time

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import in_turn, timed
from benchmarks.stage import Stage

NAME = "storm"
MOST = 200
ROUNDS, BUDGET = 5, 20.0


def measure(stage: Stage) -> Figure:
    stage.serve()
    names = stage.names[:MOST]
    bare = [f"bare-{name}" for name in names]
    for name in bare:
        stage.bare.new(name)
    stage.bell.wait(bare)
    acts = (lambda: storm(stage, names), timed(lambda: stage.bare.replace(bare)))
    measured, limit = in_turn(stage.rounds(ROUNDS), *acts, budget=BUDGET, warm=False)
    for name in bare:
        stage.bare.kill(name)
    ratio, _ = ratios(measured, limit)
    what = f"{len(names)} cycles for as many agents, asked for at once, until the last successor runs"
    return Figure(
        NAME, what, measured,
        limits=(Limit("bare kill-session and new-session of as many, one after the other", limit),),
        goals=(Goal("p50 / limit", ratio, 3),),
        facts={"cycles a second": len(names) / measured.p50},
    )  # fmt: skip


def storm(stage: Stage, names: list[str]) -> float:
    """All of them at once; the time until the last one's successor rings."""
    stage.bell.clear()
    began = time.monotonic()
    ids = stage.ask(names)
    took = max(stage.bell.wait(names, deadline=300.0).values()) - began
    stage.settled(ids)
    return took
