"""One cycle, as the agent sees it."""

import time

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import in_turn, timed
from benchmarks.town import BenchTown, address
from gastown_mail import send_lifecycle

NAME = "cycle"
WHAT = "from send_lifecycle() returning to the successor's program running; the agent ends on SIGTERM at once"
ROUNDS, SETTLE, BUDGET = 40, 0.1, 30.0
BARE = "bare"


def measure(bench: BenchTown) -> Figure:
    bench.serve()
    agents = iter(bench.names * (ROUNDS + 1))
    bench.bare.new(BARE)
    bench.bell.wait([BARE])
    acts = (lambda: until_it_runs(bench, next(agents)), timed(lambda: bench.bare.replace([BARE])))
    measured, limit = in_turn(bench.rounds(ROUNDS), *acts, budget=BUDGET, rest=SETTLE)
    bench.bare.kill(BARE)
    p50, p95 = ratios(measured, limit)
    return Figure(
        NAME, WHAT, measured,
        limits=(Limit("bare kill-session and new-session of the same program until it runs", limit),),
        goals=(Goal("p50 / limit", p50, 5), Goal("p95 / limit's p50", p95, 10)),
    )  # fmt: skip


def until_it_runs(bench: BenchTown, name: str) -> float:
    """Send a cycle; return the time until the successor rings. The daemon is idle before and after."""
    bench.bell.clear()
    receipt = send_lifecycle(
        "cycle", agent=address(name), redis_url=bench.redis_url, town=bench.town.keys.town, environ={}
    )
    began = time.monotonic()
    took = bench.bell.wait([name])[name] - began
    bench.settled([receipt.id])
    return took
