"""The clerk alone with a long inbox: how many elements it accepts per second, and its use of memory."""

import random
import time
from pathlib import Path

from redis import Redis

from benchmarks.figures import Figure, Goal, Limit, Samples
from benchmarks.sampling import in_turn
from benchmarks.town import BenchTown, address
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.settings import Settings
from gastown_mail.plumbing.connections import connect
from tests.support.parts import CLERK, running
from tests.support.town import element
from tests.support.wait import eventually

NAME = "inbox"
AGENTS = 100
MANY, FEW = 10_000, 1_000
ROUNDS, BUDGET = 4, 20.0
BATCH = 200
COMMANDS = 12
"""About how many commands it takes to accept one element."""

LIMIT = f"the same moves by {BATCH}, then a MULTI of {COMMANDS} HSETs for each first copy and an LREM for all"
NOISE = 1.0
"""Megabytes by which two runs of the same program may differ."""


def measure(bench: BenchTown) -> Figure:
    many, few = (MANY // 10, FEW // 10) if bench.quick else (MANY, FEW)
    agents = [address(f"a{number:03}") for number in range(AGENTS)]
    settings = bench.new_town("".join(f"[agents.\"{agent}\"]\ncommand = 'true'\n" for agent in agents))
    batches = {count: elements(count, agents) for count in (many, few)}
    # A database of its own: each round empties it.
    with connect(f"{bench.redis_url}?db=1", deadline=30.0) as redis:
        job = Job(settings, f"{bench.redis_url}?db=1", redis)
        acts = (
            lambda: job.judged(batches[many]),
            lambda: job.bare(batches[many]),
            lambda: job.judged(batches[few]),
        )
        measured, limit, _ = in_turn(bench.rounds(ROUNDS), *acts, budget=BUDGET, warm=False)
    backlog = (sum(map(len, batches[many])) - sum(map(len, batches[few]))) / 1e6
    peak = {count: Samples.of(job.peaks[count]).p50 for count in (many, few)}
    return Figure(
        NAME, f"{many} elements for {AGENTS} agents, half copies, a tenth garbage, judged by the clerk alone",
        measured,
        limits=(Limit(LIMIT, limit),),
        goals=(
            Goal("elements/s", many / measured.p50, 2000, "≥"),
            Goal("memory grows", peak[many] - peak[few], backlog + NOISE, unit="MB"),
        ),
        facts={f"peak memory of the clerk in MB with {count}": value for count, value in peak.items()},
    )  # fmt: skip


def elements(count: int, agents: list[str]) -> list[bytes]:
    """Return elements in an order that is always the same: half are copies, a tenth is garbage."""
    order = random.Random(7)
    first = [
        b"garbage %d" % number
        if number % 10 == 0
        else element(agents[number % len(agents)], id=f"b-{number}")
        for number in range(count // 2)
    ]
    both = first * 2
    order.shuffle(both)
    return both


class Job:
    """The same inbox, worked through by a clerk in its own process or by bare commands from here."""

    def __init__(self, settings: Settings, url: str, redis: Redis) -> None:
        self._settings, self._url, self._redis = settings, url, redis
        self._keys = Keys(settings.town_name)
        self.peaks: dict[int, list[float]] = {}

    def judged(self, batch: list[bytes]) -> float:
        """Return the time from a full inbox to an empty one."""
        self._fill(batch)
        with running(CLERK, self._settings, self._url) as clerk:
            eventually(lambda: self._redis.exists(self._keys.clerk))
            took = self._worked_off()
            self.peaks.setdefault(len(batch), []).append(_peak(clerk.pid))
        return took

    def bare(self, batch: list[bytes]) -> float:
        """Do the same moves, and about as many commands, with Redis alone."""
        self._fill(batch)
        self._redis.rename("full", self._keys.inbox)
        began, known = time.monotonic(), set[bytes]()
        while taken := self._move():
            with self._redis.pipeline() as pipe:
                for raw in taken:
                    for number in range(COMMANDS if raw not in known else 0):
                        pipe.hset(f"bare:{len(known)}:{number}", "element", raw)
                    pipe.lrem(self._keys.taken, 1, raw)  # type: ignore[arg-type]
                    known.add(raw)
                pipe.execute()
        return time.monotonic() - began

    def _fill(self, batch: list[bytes]) -> None:
        """Empty Redis except for one list, which becomes the inbox at once when it is renamed."""
        self._redis.flushdb()
        self._redis.rpush("full", *batch)

    def _worked_off(self) -> float:
        redis, keys = self._redis, self._keys
        redis.rename("full", keys.inbox)
        began = time.monotonic()
        eventually(
            lambda: not redis.llen(keys.inbox) and not redis.llen(keys.taken), deadline=120.0, step=0.005
        )
        return time.monotonic() - began

    def _move(self) -> list[bytes]:
        with self._redis.pipeline(transaction=False) as pipe:
            for _ in range(BATCH):
                pipe.lmove(self._keys.inbox, self._keys.taken, "LEFT", "RIGHT")
            return [raw for raw in pipe.execute() if raw is not None]


def _peak(pid: int) -> float:
    """Return the most memory that a process has used, in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
