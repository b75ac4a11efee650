"""A heartbeat that finds nothing to do."""

from typing import Any

from redis.connection import UnixDomainSocketConnection

from benchmarks.bare import Bare
from benchmarks.figures import Figure, Goal, Limit
from benchmarks.sampling import in_turn, timed
from benchmarks.town import BenchTown
from gastown_mail.lifecycle import heartbeat
from gastown_mail.sessions.panes import PANE_FORMAT
from gastown_mail.town.town import Town

NAME = "heartbeat"
WHAT = "run_heartbeat over agents that are all live, idle and not due"
ROUNDS, BUDGET = 30, 20.0
FEW = 5
"""Agents of the smaller roster; the number of calls must be the same as with all."""


class Counted(UnixDomainSocketConnection):
    """A connection that counts the round trips of all its kind; a pipeline is one."""

    trips = 0

    def send_packed_command(self, *arguments: Any, **options: Any) -> Any:
        Counted.trips += 1
        return super().send_packed_command(*arguments, **options)  # type: ignore[no-untyped-call]


def measure(bench: BenchTown) -> Figure:
    town, bare = bench.town, bench.bare
    acts = (lambda: heartbeat.run_heartbeat(town), lambda: bare_look(bare, town))
    measured, limit = in_turn(bench.rounds(ROUNDS), *map(timed, acts), budget=BUDGET)
    calls, trips = count(bench)
    with bench.with_only(FEW):
        few_calls, few_trips = count(bench)
    return Figure(
        NAME, WHAT, measured,
        limits=(Limit("a bare list-panes -a of the same format, a pipelined HGETALL of all agents", limit),),
        goals=(
            Goal("p50", measured.p50 * 1000, 250, unit="ms"),
            Goal("tmux calls", calls, few_calls, "=", f"(with {FEW})"),
            Goal("round trips", trips, few_trips, "=", f"(with {FEW})"),
        ),
    )  # fmt: skip


def bare_look(bare: Bare, town: Town) -> None:
    """Read what every heartbeat must read."""
    bare.run("list-panes", "-a", "-F", PANE_FORMAT)
    with town.redis.pipeline(transaction=False) as pipe:
        for address in town.roster().agents:
            pipe.hgetall(town.keys.agent(address))
        pipe.execute()


def count(bench: BenchTown) -> tuple[int, int]:
    """Return how many tmux processes and Redis round trips one heartbeat takes."""
    town = bench.open()
    town.redis.connection_pool.connection_class = Counted
    heartbeat.run_heartbeat(town)
    calls, trips = town.sessions.tmux.calls, Counted.trips
    heartbeat.run_heartbeat(town)
    return town.sessions.tmux.calls - calls, Counted.trips - trips
