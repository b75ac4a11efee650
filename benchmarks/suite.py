"""All measures, and one run of some of them."""

import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from subprocess import SubprocessError
from typing import Any

from redis.exceptions import RedisError

from benchmarks import cycle, heartbeat, idle, inbox, long_act, poke_wave, seen, send_cold, send_warm, storm
from benchmarks.figures import Figure
from benchmarks.machine import load, machine
from benchmarks.town import BenchTown, bench_town
from gastown_mail.contracts.errors import GastownError

Measure = Callable[[BenchTown], Figure]
# In this order: the daemon starts with `seen` and stays to the end.
MEASURES: Mapping[str, Measure] = {
    poke_wave.NAME: poke_wave.measure,
    heartbeat.NAME: heartbeat.measure,
    send_cold.NAME: send_cold.measure,
    send_warm.NAME: send_warm.measure,
    inbox.NAME: inbox.measure,
    seen.NAME: seen.measure,
    cycle.NAME: cycle.measure,
    storm.NAME: storm.measure,
    long_act.NAME: long_act.measure,
    idle.NAME: idle.measure,
}
TROUBLE = (GastownError, RedisError, AssertionError, OSError, SubprocessError)
"""Errors that end one measure but not the run."""

_BUSY_LOAD = 0.5
"""The load of each core before the run above which other work is measured too."""

_BUSY = "\nthis machine is too busy to judge by: other work took much of its time before the run"

LEAST = heartbeat.FEW
"""The fewest agents with which all measures make sense."""


def run(agents: int, names: Collection[str], *, quick: bool) -> tuple[list[Figure], dict[str, Any]]:
    """Take these measures; return the figures and the document of the run. Raises NoRoom."""
    began, before, where = time.monotonic(), load(), machine()
    figures, failures = list[Figure](), dict[str, str]()
    with bench_town(agents, quick=quick) as bench:
        for name in (name for name in MEASURES if name in names):
            say(f"{time.monotonic() - began:5.0f} s  {agents} agents: {name}")
            try:
                figures.append(MEASURES[name](bench))
            except TROUBLE as error:
                failures[name] = f"{type(error).__name__}: {error}"
                say(f"         {failures[name]}")
    document = {
        "agents": agents, "quick": quick, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began, 1), "machine": where,
        "load_before": before, "load_after": load(), "busy": before > _BUSY_LOAD * int(where["cores"]),
        "figures": [figure.document() for figure in figures], "failures": failures,
    }  # fmt: skip
    return figures, document


def title(document: Mapping[str, Any]) -> str:
    """Return two lines about the machine and the time of a run."""
    where, quick = document["machine"], " · quick" if document["quick"] else ""
    return (
        f"{document['agents']} agents · {where['cores']} cores of {where['cpu']}"
        f" · Python {where['python']} · {where['tmux']} · commit {where['commit']}\n"
        f"{document['at']} · took {document['took_s']} s"
        f" · load {document['load_before']} before, {document['load_after']} after{quick}"
        f"{_BUSY if document['busy'] else ''}"
    )


def cleanly(work: Callable[[], int]) -> int:
    """Run `work` and return the exit code, also after Ctrl-C or an error. SIGTERM cleans up too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return work()
    except GastownError as error:
        say(f"benchmarks: {error}")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
