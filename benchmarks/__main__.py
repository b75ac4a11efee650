"""Run the benchmarks: `python -m benchmarks [--agents 60] [--only NAME ...] [--json FILE] [--quick]`.

Prints one table, then one JSON document on one line, or puts that into FILE.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import cycle, heartbeat, idle, inbox, long_act, poke_wave, seen, send_cold, send_warm, storm
from benchmarks.figures import Figure, table
from benchmarks.machine import load, machine
from benchmarks.stage import Stage, a_stage
from gastown_mail.contracts.errors import GastownError

Measure = Callable[[Stage], Figure]
# In this order: the daemon comes in with `seen` and stays to the end.
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


def run(agents: int, names: Sequence[str], *, quick: bool) -> tuple[list[Figure], dict[str, Any]]:
    """Measure these; the figures, and the document of the whole run."""
    began, before = time.monotonic(), load()
    figures, failures = list[Figure](), dict[str, str]()
    with a_stage(agents, quick=quick) as stage:
        for name in (name for name in MEASURES if name in names):
            _say(f"{time.monotonic() - began:5.0f} s  {name}")
            try:
                figures.append(MEASURES[name](stage))
            except (GastownError, AssertionError, OSError) as error:
                failures[name] = f"{type(error).__name__}: {error}"
                _say(f"         {failures[name]}")
    document = {
        "agents": agents, "quick": quick, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began, 1), "machine": machine(),
        "load_before": before, "load_after": load(),
        "figures": [figure.document() for figure in figures], "failures": failures,
    }  # fmt: skip
    return figures, document


def main() -> int:
    """The exit code: 1 when a measure failed; a goal that is missed is no failure."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures, document = run(given.agents, given.only or list(MEASURES), quick=given.quick)
    except GastownError as error:
        _say(f"benchmarks: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print(_title(document), table(figures), sep="\n", flush=True)  # noqa: T201
    text = json.dumps(document, ensure_ascii=False)
    if given.json:
        given.json.write_text(text + "\n")
    else:
        print(text)  # noqa: T201
    return 1 if document["failures"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What is claimed about speed.")
    parser.add_argument("--agents", type=int, default=60, metavar="N", help="live agents: 60, 200, 1000")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="put the JSON document there")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not how fast")
    given = parser.parse_args()
    if given.agents < heartbeat.FEW:
        parser.error(f"--agents: at least {heartbeat.FEW}")
    return given


def _title(document: Mapping[str, Any]) -> str:
    where, quick = document["machine"], " · quick" if document["quick"] else ""
    return (
        f"{document['agents']} agents · {where['cores']} cores of {where['cpu']}"
        f" · Python {where['python']} · {where['tmux']} · commit {where['commit']}\n"
        f"{document['at']} · took {document['took_s']} s"
        f" · load {document['load_before']} before, {document['load_after']} after{quick}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
