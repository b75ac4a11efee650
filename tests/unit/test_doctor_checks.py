"""What `doctor` concludes from what systemd and Redis say."""

from collections.abc import Mapping

import pytest

from gastown_mail.status.checks import _MIN_REDIS, _numbers
from gastown_mail.status.systemd import check_unit

SERVICE = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/town.service\n"
SYSTEM_V1 = "12:cpu:/\n1:name=systemd:/system.slice/town.service\n"
ELSEWHERE = "0::/user.slice/user-1000.slice/session-3.scope\n"
GOOD = {"KillMode": "process", "TimeoutStopUSec": "1min 30s"}
DEFAULT = {"KillMode": "control-group", "TimeoutStopUSec": "1min 30s"}


def findings(ours: str, tmux: str, said: Mapping[str, str] | None) -> list[str]:
    results = check_unit(ours, tmux, lambda unit, _: said, contained=False)
    return [result.text for result in results if result.verdict == "finding"]


def verdicts(ours: str, said: Mapping[str, str] | None, *, contained: bool = False) -> list[str]:
    return [result.verdict for result in check_unit(ours, ours, lambda unit, _: said, contained=contained)]


@pytest.mark.parametrize("ours", [SERVICE, SYSTEM_V1])
def test_a_unit_that_takes_the_tmux_server_along_is_a_finding(ours: str) -> None:
    for tmux in (ours, ""):
        [text] = findings(ours, tmux, DEFAULT)

        assert text.startswith("a stop of town.service would end the tmux server with all agents")
        assert text.endswith("set KillMode=process")
    assert findings(ours, ours, GOOD) == findings(ours, ELSEWHERE, DEFAULT) == []


@pytest.mark.parametrize(
    ("limit", "fault"), [("5s", True), ("13.9s", True), ("14s", False), ("infinity", False)]
)
def test_a_stop_that_would_be_cut_short_is_a_finding(limit: str, fault: bool) -> None:
    found = findings(SERVICE, ELSEWHERE, GOOD | {"TimeoutStopUSec": limit})

    assert [text.endswith("raise TimeoutStopSec") for text in found] == [True] * fault


def test_a_check_that_cannot_see_says_so() -> None:
    assert verdicts(SERVICE, None) == ["not checked"]
    assert verdicts(SERVICE, GOOD | {"TimeoutStopUSec": "soon"}) == ["ok", "not checked"]
    assert verdicts("0::/\n", None, contained=True) == ["not checked"]
    assert verdicts(ELSEWHERE, None) == ["ok"]


def test_systemd_is_asked_for_a_unit_of_the_user_as_the_user() -> None:
    asked = []

    def ask(unit: str, of_user: bool) -> None:
        asked.append((unit, of_user))

    for cgroup in (SERVICE, SYSTEM_V1):
        list(check_unit(cgroup, "", ask, contained=False))

    assert asked == [("town.service", True), ("town.service", False)]


@pytest.mark.parametrize(
    ("version", "old"), [("6.0.16", True), ("6.2.0", False), ("7.2.4", False), ("10.0", False)]
)
def test_a_redis_without_lmove_is_too_old(version: str, old: bool) -> None:
    assert (_numbers(version) < _MIN_REDIS) is old


def test_a_version_without_numbers_is_the_newest() -> None:
    assert _numbers("next-3.4") == (3, 4)
    assert _numbers("master") > (99, 0)
