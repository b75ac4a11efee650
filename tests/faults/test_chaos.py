"""A short run of the chaos suite; `make chaos` makes long ones."""

import pytest

from tests.faults import chaos

SECONDS, SEED, REQUESTS = 30.0, 20251220, 60


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_done_twice_whatever_is_killed() -> None:
    report = chaos.run(SECONDS, SEED, REQUESTS)

    assert report.violations == [], str(report)
    assert sum(report.kills.values()) > 0
    assert report.statuses["done"] > 0
    assert sum(report.statuses.values()) == sum(report.ways.values())
