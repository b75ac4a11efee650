"""The figures of the benchmarks: how they are computed, judged and shown."""

import json
import re

import pytest

from benchmarks.figures import Figure, Goal, Limit, Samples, ratios, table
from benchmarks.growth import GROWING
from benchmarks.picture import picture

MEASURED = Samples.of([0.003, 0.001, 0.002, 0.010])
FIGURE = Figure(
    "cycle", "from asking to running", MEASURED,
    limits=(
        Limit("kill and new", Samples.of([0.001])),
        Limit("that with looks", Samples.of([0.002]), "looks"),
    ),
    goals=(Goal("p50 / limit", 2.5, 5), Goal("elements/s", 1999, 2000, "≥")),
    facts={"processes": 4},
)  # fmt: skip


def test_median_and_p95() -> None:
    assert MEASURED.p50 == pytest.approx(0.0025)
    assert MEASURED.p95 == pytest.approx(0.010)
    assert Samples.of(range(1, 101)).p95 == 95


def test_ratios_are_relative_to_the_limits_median() -> None:
    assert ratios(MEASURED, Samples.of([0.001, 0.001, 0.9])) == pytest.approx((2.5, 10))


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("p50", 5, 5), True),
        (Goal("p50", 5.1, 5), False),
        (Goal("CPU", 1, 1, "<"), False),
        (Goal("elements/s", 2000, 2000, "≥"), True),
        (Goal("tmux calls", 2, 1, "="), False),
    ],
)
def test_a_goal_is_met_or_not(goal: Goal, met: bool) -> None:
    assert goal.met is met


def test_the_table_says_it_all_in_a_hundred_columns() -> None:
    lines = table([FIGURE]).splitlines()

    assert max(map(len, lines)) <= 100
    [row] = [line for line in lines if line.startswith("cycle ")]
    assert row.split() == "cycle 4 2.5 ms 10.0 ms 1.0 ms 2.50 10.00 p50 / limit 2.50 ≤ 5 yes".split()
    [beside] = [line for line in lines if line.startswith("  beside looks")]
    assert beside.split()[-5:] == "elements/s 1999 ≥ 2000 NO".split()
    assert lines[-2:] == [
        "cycle: from asking to running. Limit: kill and new. Limit (looks): that with looks. Seen: processes",
        "    4.",
    ]


def test_the_document_says_the_same() -> None:
    document = json.loads(json.dumps(FIGURE.document()))

    assert document["measured"]["samples"] == [0.003, 0.001, 0.002, 0.01]
    assert [limit["ratio_p50"] for limit in document["limits"]] == [2.5, 1.25]
    assert [goal["met"] for goal in document["goals"]] == [True, False]


def test_the_picture_is_the_same_each_time_and_refers_to_nothing_outside() -> None:
    pytest.importorskip("matplotlib")
    runs = [{"agents": size, "figures": [FIGURE.document()]} for size in (10, 100, 1000)]

    drawn = picture(GROWING, runs)

    assert drawn == picture(GROWING, runs)
    assert ">cycle<" in drawn, "text is text"
    assert not [name for name in GROWING if name != "cycle" and f">{name}<" in drawn]
    assert set(re.findall(r'(?:href="|url\()([^#])', drawn)) == set()
    assert set(re.findall(r"\bhttps?://[^\"' <]*", drawn)) == {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
