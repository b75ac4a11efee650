"""How it grows: the same measures for 10, 100 and 1,000 agents, and one picture of them.

`python -m benchmarks.growth [--runs DIR] [--picture FILE] [--draw]`. The picture is drawn from the JSON
documents in DIR alone; `--draw` takes those that are there.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.figures import table
from benchmarks.suite import run, title

SIZES = (10, 100, 1000)
GROWING = ("poke-wave", "heartbeat", "seen", "cycle", "storm", "storm-long-act")
"""The measures that the number of agents can change."""

COLUMNS, PANEL = 3, (3.6, 2.9)
OURS, BARE = "#0b6e4f", "#8a8a8a"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "gastown_mail", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
WITHOUT_DATE = {"Date": None, "Creator": None, "Format": None, "Type": None}


def main() -> int:
    """Run what is to be run, then draw; 1 when a measure failed."""
    given = _arguments()
    given.runs.mkdir(parents=True, exist_ok=True)
    failed = [] if given.draw else [size for size in SIZES if not _measured(size, given.runs, given.quick)]
    documents = [json.loads(file.read_text()) for file in given.runs.glob("agents-*.json")]
    given.picture.write_text(picture(sorted(documents, key=lambda document: int(document["agents"]))))
    print(f"{given.picture}: drawn from {len(documents)} runs")
    return 1 if failed else 0


def _measured(agents: int, folder: Path, quick: bool) -> bool:
    figures, document = run(agents, GROWING, quick=quick)
    print(title(document), table(figures), "", sep="\n", flush=True)
    (folder / f"agents-{agents}.json").write_text(json.dumps(document, ensure_ascii=False) + "\n")
    return not document["failures"]


def picture(documents: Sequence[Mapping[str, Any]]) -> str:
    """An SVG with a panel for each measure that all of these runs have; the same for the same documents."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = {name: points for name in GROWING if (points := _points(name, documents))}
    rows = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        canvas = Figure(figsize=(COLUMNS * PANEL[0], rows * PANEL[1]), layout="constrained")
        grid = canvas.subplots(rows, COLUMNS, squeeze=False).flat
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, points) in zip(grid, panels.items(), strict=False):
            _draw(axes, name, points)
        text = StringIO()
        canvas.savefig(text, format="svg", metadata=WITHOUT_DATE)
    return _alone(text.getvalue())


Point = tuple[int, Mapping[str, Any]]


def _points(name: str, documents: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [
        (document["agents"], figure)
        for document in documents
        for figure in document["figures"]
        if figure["name"] == name
    ]


def _draw(axes: Any, name: str, points: Sequence[Point]) -> None:
    """The measure's median with its p95, and the limit's median, over the number of agents."""
    from matplotlib.ticker import LogLocator

    agents = [size for size, _ in points]
    ours = [figure["measured"]["p50"] for _, figure in points]
    slow = [figure["measured"]["p95"] for _, figure in points]
    bare = [figure["limits"][0]["p50"] for _, figure in points]
    axes.fill_between(agents, ours, slow, color=OURS, alpha=0.15, linewidth=0, label="up to p95")
    axes.plot(agents, ours, "o-", color=OURS, label="p50")
    axes.plot(agents, bare, "s--", color=BARE, label="limit, p50")
    for size, value, limit in zip(agents, ours, bare, strict=True):
        axes.annotate(
            f"{value / limit:.1f}×", (size, value), xytext=(0, 6), textcoords="offset points", ha="center"
        )
    axes.set(title=name, xscale="log", yscale="log", xlabel="agents")
    axes.set_ylim(min(bare + ours) / 2, max(slow) * 2.5)
    axes.set_xticks(agents, [f"{size:,}" for size in agents])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms")
    axes.legend(frameon=False, fontsize=8)


def _alone(svg: str) -> str:
    """The SVG without what refers to other places."""
    svg = re.sub(r"<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="How it grows.")
    parser.add_argument("--runs", type=Path, default=Path("build/growth"), metavar="DIR")
    parser.add_argument("--picture", type=Path, default=Path("docs/performance.svg"), metavar="FILE")
    parser.add_argument("--draw", action="store_true", help="only draw, from the runs that are there")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not how fast")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
