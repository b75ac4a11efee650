"""A picture of how the measures grow with the number of agents, drawn from documents of runs. Pure."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

Point = tuple[int, Mapping[str, Any]]
"""A number of agents, and the document of a figure."""

COLUMNS, PANEL = 3, (3.6, 2.9)
OURS, BARE = "#0b6e4f", "#8a8a8a"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "gastown_mail", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
WITHOUT_DATE = {"Date": None, "Creator": None, "Format": None, "Type": None}


def picture(names: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG with a panel for each of these measures; the same runs give the same SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = {name: points for name in names if (points := _points(name, documents))}
    rows = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        canvas = Figure(figsize=(COLUMNS * PANEL[0], rows * PANEL[1]), layout="constrained")
        grid = canvas.subplots(rows, COLUMNS, squeeze=False).flat
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, points) in zip(grid, panels.items(), strict=False):
            _draw(axes, name, points)
        keys = grid[0].get_legend_handles_labels()
        canvas.legend(*keys, loc="outside lower center", ncols=3, frameon=False)
        text = StringIO()
        canvas.savefig(text, format="svg", metadata=WITHOUT_DATE)
    return _alone(text.getvalue())


def _points(name: str, documents: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [
        (document["agents"], figure)
        for document in documents
        for figure in document["figures"]
        if figure["name"] == name
    ]


def _draw(axes: Any, name: str, points: Sequence[Point]) -> None:
    """Draw the measure's median and p95, and the limit's median, over the number of agents."""
    from matplotlib.ticker import LogLocator

    agents = [size for size, _ in points]
    ours = [figure["measured"]["p50"] for _, figure in points]
    slow = [figure["measured"]["p95"] for _, figure in points]
    bare = [figure["limits"][0]["p50"] for _, figure in points]
    axes.fill_between(agents, ours, slow, color=OURS, alpha=0.15, linewidth=0, label="up to p95")
    axes.plot(agents, ours, "o-", color=OURS, label="p50, and how many times the limit")
    axes.plot(agents, bare, "s--", color=BARE, label="limit, p50")
    for size, value, limit in zip(agents, ours, bare, strict=True):
        axes.annotate(
            f"{value / limit:.1f}×", (size, value), xytext=(0, 6), textcoords="offset points", ha="center"
        )
    axes.set(title=name, xscale="log", yscale="log", xlabel="agents")
    axes.set_xlim(agents[0] / 2, agents[-1] * 2)
    axes.set_ylim(min(bare + ours) / 2, max(slow) * 3)
    axes.set_xticks(agents, [f"{size:,}" for size in agents])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms")


def _alone(svg: str) -> str:
    """Return the SVG without references to other places."""
    svg = re.sub(r"<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
