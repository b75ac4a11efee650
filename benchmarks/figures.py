"""A figure: what was measured, the limit next to it, the goals, and how they are shown. Pure.

Times are seconds. A ratio is to the median of the limit, that of the measure's p95 too: the slowest may take
so many times what the bare thing takes.
"""

import math
import operator
import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

WIDTH = 100
SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "≤": operator.le, "<": operator.lt, "≥": operator.ge, "=": operator.eq,
}  # fmt: skip
HEADER = (
    f"{'measure':<16}{'n':>4}{'p50':>9}{'p95':>9}{'limit':>9}{'p50':>7}{'p95':>7}  {'goal':<32}{'met':>5}"
)
ABOVE = f"{'':<47}{'÷ limit':>14}"


@dataclass(frozen=True)
class Samples:
    """The measured values, one a round."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Samples":
        return cls(tuple(values))

    @property
    def p50(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The smallest value that at least 95 % of the values do not exceed."""
        return sorted(self.values)[math.ceil(0.95 * len(self.values)) - 1]

    def document(self) -> dict[str, Any]:
        rounded = [round(value, 6) for value in self.values]
        return {"n": len(rounded), "p50": round(self.p50, 6), "p95": round(self.p95, 6), "samples": rounded}


@dataclass(frozen=True)
class Limit:
    """What the bare operation takes; `name` labels it in the table unless it is the first."""

    what: str
    samples: Samples
    name: str = ""


@dataclass(frozen=True)
class Goal:
    """`value` `sign` `bound`, in short words."""

    what: str
    value: float
    bound: float
    sign: str = "≤"
    unit: str = ""

    @property
    def met(self) -> bool:
        return SIGNS[self.sign](self.value, self.bound)

    def __str__(self) -> str:
        return f"{self.what} {_short(self.value)} {self.sign} {_short(self.bound)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Figure:
    """One measure with its limits (the goals' ratios are to the first), goals and facts."""

    name: str
    what: str
    measured: Samples
    limits: tuple[Limit, ...] = ()
    goals: tuple[Goal, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    unit: str = "s"

    def document(self) -> dict[str, Any]:
        """Return the figure for the JSON document."""
        return {
            "name": self.name, "what": self.what, "unit": self.unit, "measured": self.measured.document(),
            "limits": [_limit_document(self.measured, limit) for limit in self.limits],
            "goals": [
                {"goal": str(g), "value": round(g.value, 6), "sign": g.sign, "bound": g.bound, "met": g.met}
                for g in self.goals
            ],
            "facts": {name: round(value, 6) for name, value in self.facts.items()},
        }  # fmt: skip


def ratios(measured: Samples, limit: Samples) -> tuple[float, float]:
    """Return the measure's p50 and p95 divided by the limit's p50."""
    return measured.p50 / limit.p50, measured.p95 / limit.p50


def _limit_document(measured: Samples, limit: Limit) -> dict[str, Any]:
    p50, p95 = ratios(measured, limit.samples)
    document = {"what": limit.what, "ratio_p50": round(p50, 3), "ratio_p95": round(p95, 3)}
    return document | limit.samples.document()


def table(figures: Sequence[Figure]) -> str:
    """Return all figures, 100 columns wide: a row for each limit and goal, then a note on each figure."""
    rows = [row for figure in figures for row in _rows(figure)]
    notes = [line for figure in figures for line in _notes(figure)]
    return "\n".join([ABOVE, HEADER, "─" * WIDTH, *rows, "─" * WIDTH, *notes])


def _rows(figure: Figure) -> Iterator[str]:
    for number, (limit, goal) in enumerate(zip_longest(figure.limits or (None,), figure.goals)):
        own = _own_columns(figure) if number == 0 else f"{_aside(limit):<38}"
        goals = f"  {goal!s:<32}{'yes' if goal.met else 'NO':>5}" if goal else ""
        yield f"{own}{_limit_columns(figure, limit)}{goals}".rstrip()


def _own_columns(figure: Figure) -> str:
    sample = figure.measured
    p50, p95 = _shown(sample.p50, figure.unit), _shown(sample.p95, figure.unit)
    return f"{figure.name:<16}{len(sample.values):>4}{p50:>9}{p95:>9}"


def _aside(limit: Limit | None) -> str:
    return f"  beside {limit.name}" if limit else ""


def _limit_columns(figure: Figure, limit: Limit | None) -> str:
    if limit is None:
        return " " * 23
    p50, p95 = ratios(figure.measured, limit.samples)
    return f"{_shown(limit.samples.p50, figure.unit):>9}{p50:>7.2f}{p95:>7.2f}"


def _notes(figure: Figure) -> Iterator[str]:
    limits = "".join(
        f" Limit{f' ({limit.name})' if limit.name else ''}: {limit.what}." for limit in figure.limits
    )
    facts = ", ".join(f"{name} {_short(value)}" for name, value in figure.facts.items())
    text = f"{figure.name}: {figure.what}.{limits or ' No limit beside it.'}" + (
        f" Seen: {facts}." if facts else ""
    )
    yield from textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def _shown(value: float, unit: str) -> str:
    if unit != "s":
        return f"{_short(value)} {unit}"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _short(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}"
