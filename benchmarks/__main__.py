"""Run the benchmarks: `python -m benchmarks [--agents 60] [--only NAME ...] [--json FILE] [--quick]`.

Prints one table, and puts the whole run into FILE as one JSON document.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.figures import table
from benchmarks.suite import LEAST, MEASURES, cleanly, run, title


def main() -> int:
    """Run the chosen measures; return 1 when one failed. A missed goal is not a failure."""
    given = _arguments()
    figures, document = run(given.agents, given.only or MEASURES, quick=given.quick)
    print(title(document), table(figures), sep="\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps(document, ensure_ascii=False) + "\n")
    return 1 if document["failures"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the claims about speed."
    )
    parser.add_argument("--agents", type=int, default=60, metavar="N", help="live agents: 60, 200, 1000")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="put the JSON document there")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: to check that it works, not how fast"
    )
    given = parser.parse_args()
    if given.agents < LEAST:
        parser.error(f"--agents: at least {LEAST}")
    return given


if __name__ == "__main__":
    sys.exit(cleanly(main))
