"""Sending from a process that has everything imported."""

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import in_turn, timed
from benchmarks.town import BenchTown, address
from gastown_mail import send_lifecycle
from gastown_mail.contracts.keys import Keys
from gastown_mail.plumbing.connections import connect

NAME = "send-warm"
WHAT = "send_lifecycle in a process that has it imported"
ROUNDS, BUDGET = 3000, 20.0
UNSERVED = "bench-warm"


def measure(bench: BenchTown) -> Figure:
    url, inbox, asker = bench.redis_url, Keys(UNSERVED).inbox, address(bench.names[0])

    def send() -> None:
        send_lifecycle("cycle", agent=asker, redis_url=url, town=UNSERVED, environ={})

    send()
    with connect(url) as redis:
        element = redis.lindex(inbox, -1)

        def connect_and_push() -> None:
            with connect(url) as another:
                another.rpush(inbox, element)

        acts = map(timed, (send, lambda: redis.rpush(inbox, element), connect_and_push))
        measured, limit, connected = in_turn(bench.rounds(ROUNDS), *acts, budget=BUDGET, rest=0.0)
        redis.delete(inbox)
    return Figure(
        NAME, WHAT, measured,
        limits=(
            Limit("RPUSH of the same bytes on an open connection", limit),
            Limit("connecting, then that RPUSH", connected, "connecting"),
        ),
        goals=(Goal("p50 / limit", ratios(measured, limit)[0], 1.5),),
    )  # fmt: skip
