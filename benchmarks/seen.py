"""How soon a request is seen."""

import time

from benchmarks.figures import Figure, Goal, Limit
from benchmarks.sampling import in_turn
from benchmarks.town import BenchTown, address
from gastown_mail import send_lifecycle
from gastown_mail.plumbing.connections import connect

NAME = "seen"
WHAT = "from send_lifecycle() returning until the request has a status; its cycle is waited for in between"
ROUNDS, SETTLE, BUDGET = 40, 0.1, 20.0
DEADLINE = 30.0
FROM, TO = "bench:from", "bench:to"


def measure(bench: BenchTown) -> Figure:
    bench.serve()
    agents = iter(bench.names * (ROUNDS + 1))
    measured, limit = in_turn(
        bench.rounds(ROUNDS),
        lambda: until_seen(bench, next(agents)),
        lambda: blmove(bench),
        budget=BUDGET,
        rest=SETTLE,
    )
    return Figure(
        NAME, WHAT, measured,
        limits=(Limit("RPUSH until a BLMOVE that waits for it on another connection has answered", limit),),
        goals=(Goal("p50", measured.p50 * 1000, 10, unit="ms"),),
    )  # fmt: skip


def until_seen(bench: BenchTown, name: str) -> float:
    """Send a request, and poll its status on a warm connection without a pause."""
    redis, keys = bench.town.redis, bench.town.keys
    receipt = send_lifecycle(
        "cycle", agent=address(name), redis_url=bench.redis_url, town=keys.town, environ={}
    )
    began, key = time.monotonic(), keys.request(receipt.id)
    while not redis.hget(key, "status"):
        if time.monotonic() - began > DEADLINE:
            raise TimeoutError(f"the request was not seen within {DEADLINE:g} s")
    took = time.monotonic() - began
    bench.settled([receipt.id])
    return took


def blmove(bench: BenchTown) -> float:
    """Move one element from one connection to another that waits for it."""
    with connect(bench.redis_url, blocking=DEADLINE) as waiting, connect(bench.redis_url) as pushing:
        pushing.delete(FROM, TO)
        link = waiting.connection_pool.get_connection()
        link.send_command("BLMOVE", FROM, TO, "LEFT", "RIGHT", DEADLINE)
        while not pushing.info("clients")["blocked_clients"]:
            pass
        began = time.monotonic()
        pushing.rpush(FROM, "element")
        link.read_response()
        return time.monotonic() - began
