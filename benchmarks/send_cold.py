"""Sending as agents do it: a whole process for one request."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import in_turn, timed
from benchmarks.town import BenchTown, address
from tests.support.processes import clean_environ

NAME = "send-cold"
WHAT = "gastown-mail send cycle, the whole process, in a session's environment"
ROUNDS, BUDGET = 40, 20.0
UNSERVED = "bench-cold"
"""A town without a daemon: what is sent there stays in its inbox."""


def measure(bench: BenchTown) -> Figure:
    environ = clean_environ(
        GASTOWN_REDIS_URL=bench.redis_url, GASTOWN_TOWN_NAME=UNSERVED, GASTOWN_AGENT=address(bench.names[0]),
        GASTOWN_INCARNATION="0" * 32, GASTOWN_TOWN=str(bench.settings.town_root),
    )  # fmt: skip
    command = str(Path(sys.executable).with_name("gastown-mail"))
    words = ([command, "send", "cycle"], [sys.executable, "-c", "import redis"])
    acts = [timed(lambda words=words: run(words, environ)) for words in words]  # type: ignore[misc]
    measured, limit = in_turn(bench.rounds(ROUNDS), *acts, budget=BUDGET)
    return Figure(
        NAME, WHAT, measured,
        limits=(Limit('python -c "import redis"', limit),),
        goals=(Goal("p50 / limit", ratios(measured, limit)[0], 1.5),),
    )  # fmt: skip


def run(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a process to its end; it must succeed."""
    subprocess.run(words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True)
