"""How the figures grow: the same measures for 10, 100 and 1,000 agents, in one picture.

`python -m benchmarks.growth [--runs DIR] [--picture FILE] [--draw]`. The picture is drawn from the JSON
documents in DIR alone; `--draw` takes those that are there.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.figures import table
from benchmarks.picture import picture
from benchmarks.suite import cleanly, run, say, title

SIZES = (10, 100, 1000)
GROWING = ("poke-wave", "heartbeat", "seen", "cycle", "storm", "storm-long-act")
"""The measures that depend on the number of agents."""


def main() -> int:
    """Run the measures, then draw; return 1 when a measure failed."""
    given = _arguments()
    given.runs.mkdir(parents=True, exist_ok=True)
    failed = [] if given.draw else [size for size in SIZES if not _measured(size, given.runs, given.quick)]
    documents = [json.loads(file.read_text()) for file in given.runs.glob("agents-*.json")]
    if not documents:
        say(f"there are no runs in {given.runs} to draw: run make growth, or give --runs DIR")
        return 1
    by_size = sorted(documents, key=lambda document: int(document["agents"]))
    given.picture.write_text(picture(GROWING, by_size))
    print(f"{given.picture}: drawn from {len(documents)} runs")
    return 1 if failed else 0


def _measured(agents: int, folder: Path, quick: bool) -> bool:
    figures, document = run(agents, GROWING, quick=quick)
    print(title(document), table(figures), "", sep="\n", flush=True)
    (folder / f"agents-{agents}.json").write_text(json.dumps(document, ensure_ascii=False) + "\n")
    return not document["failures"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Draw how the figures grow."
    )
    parser.add_argument("--runs", type=Path, default=Path("build/growth"), metavar="DIR")
    parser.add_argument("--picture", type=Path, default=Path("docs/performance.svg"), metavar="FILE")
    parser.add_argument("--draw", action="store_true", help="only draw, from the runs that are there")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: to check that it works, not how fast"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(cleanly(main))
