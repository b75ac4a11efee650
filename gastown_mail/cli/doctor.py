"""`doctor`: what was looked at in this town, what is wrong, and the remedy for each finding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import click

from gastown_mail.cli import checks, checks_town, stopping
from gastown_mail.cli.checks import CheckStatus, Result, Results
from gastown_mail.cli.options import json_option, load, open_town, town_option, user_redis_errors
from gastown_mail.cli.output import print_json, table
from gastown_mail.contracts.errors import GastownError, RedisUnavailable
from gastown_mail.contracts.settings import Settings
from gastown_mail.town.town import Town

FINDINGS = 6
MARKS = {CheckStatus.OK: "ok", CheckStatus.FINDING: "!", CheckStatus.UNCHECKED: "?"}


@dataclass(frozen=True)
class NamedResult:
    """A result under the name of its check."""

    check: str
    result: Result


@click.command()
@town_option
@json_option
def doctor(as_json: bool) -> int:
    """Check everything that the daemon stands on; exit 6 when there is a finding."""
    settings = load()
    checked = list(run_checks(settings))
    found = [one for one in checked if one.result.verdict is CheckStatus.FINDING]
    if as_json:
        print_json(_document(settings.town_name, checked, found))
    else:
        click.echo(_readable(settings.town_name, checked, len(found)))
    return FINDINGS if found else 0


def _document(town: str, checked: list[NamedResult], found: list[NamedResult]) -> dict[str, object]:
    return {
        "town": town,
        "findings": [{"check": one.check, "finding": one.result.text} for one in found],
        "checks": [
            {"check": one.check, "verdict": one.result.verdict.value, "text": one.result.text}
            for one in checked
        ],
    }


def _readable(town: str, checked: list[NamedResult], count: int) -> str:
    verdict = {0: "nothing is wrong", 1: "1 finding"}.get(count, f"{count} findings")
    # what is wrong stands at the top
    order = sorted(checked, key=lambda one: one.result.verdict is not CheckStatus.FINDING)
    rows = [(MARKS[one.result.verdict], one.check, one.result.text) for one in order]
    return f"{town}: {verdict}\n{table(('', 'CHECK', 'WHAT WAS SEEN'), rows)}"


def run_checks(settings: Settings) -> Iterator[NamedResult]:
    """Every check, each with what was seen; one that cannot be made says so."""
    yield from _run("folder", partial(checks.check_folder, settings))
    yield from _run("agents", partial(checks.check_agents, settings))
    yield from _run("tmux", checks.check_tmux)
    with open_town() as opened:
        for name, check in _OF_A_TOWN.items():
            yield from _run(name, partial(_asking_redis, opened, check))


def _asking_redis(town: Town, check: Callable[[Town], Results]) -> Results:
    with user_redis_errors(town.redis_url):
        yield from check(town)


def _run(name: str, check: Callable[[], Results]) -> Iterator[NamedResult]:
    try:
        yield from (NamedResult(name, result) for result in check())
    except RedisUnavailable:
        yield NamedResult(name, checks.unchecked("Redis does not answer"))
    except (GastownError, OSError) as error:
        yield NamedResult(name, checks.finding(str(error)))


_OF_A_TOWN: dict[str, Callable[[Town], Results]] = {
    "redis": checks_town.check_redis,
    "clock": checks_town.check_clock,
    "tmux socket": checks_town.check_socket,
    "tmux server": checks_town.check_server,
    "daemon": checks_town.check_daemon,
    "stopping": stopping.check_stopping,
}
