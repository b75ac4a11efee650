"""The counter that tells whether Redis has all that a host has seen."""

from pathlib import Path

import pytest

from gastown_mail.contracts.errors import Postponed
from gastown_mail.town.revision import Revision
from gastown_mail.town.town import Town


@pytest.fixture
def hosts(town: Town, tmp_path: Path) -> list[Revision]:
    """Two hosts that have seen 5."""
    hosts = [Revision(town.redis, town.keys, tmp_path / name) for name in "ab"]
    for _ in range(5):
        hosts[0].advance(town.redis)
    for host in hosts:
        host.remember(2)
    return hosts


def rewind(town: Town, number: int = 3) -> None:
    town.redis.hset(town.keys.revision, "number", str(number))


def test_an_older_redis_is_noticed_until_the_host_has_recovered(town: Town, hosts: list[Revision]) -> None:
    assert all(host.is_current() for host in hosts)

    rewind(town)

    assert not any(host.is_current() for host in hosts)
    hosts[0].set_beyond()
    hosts[0].mark_recovered()
    assert [host.is_current() for host in hosts] == [True, False]
    hosts[1].set_beyond()
    hosts[1].mark_recovered()
    assert all(host.is_current() for host in hosts)


def test_nothing_is_started_until_each_host_has_spoken(town: Town, hosts: list[Revision]) -> None:
    hosts[0].require_current(town.redis)
    rewind(town)
    with pytest.raises(Postponed, match="what it has lost is restored first"):
        hosts[0].require_current(town.redis)
    hosts[0].set_beyond()
    hosts[0].mark_recovered()
    hosts[0].remember(1)
    with pytest.raises(Postponed, match="until each host has said"):
        hosts[0].require_current(town.redis)


def test_a_town_on_one_host_waits_for_nobody(town: Town, tmp_path: Path) -> None:
    host = Revision(town.redis, town.keys, tmp_path / "a")
    host.advance(town.redis)
    host.remember(1)
    rewind(town, 0)
    host.set_beyond()
    host.mark_recovered()

    host.require_current(town.redis)


def test_a_wish_is_newer_than_all_that_redis_forgot(town: Town, hosts: list[Revision]) -> None:
    assert hosts[0].next_wish(town.redis) == 6
    rewind(town)
    assert hosts[0].next_wish(town.redis) > 1000
    assert not hosts[0].is_current(), "a wish does not hide what was lost"


def test_a_new_host_takes_redis_as_it_is(town: Town, hosts: list[Revision], tmp_path: Path) -> None:
    fresh = Revision(town.redis, town.keys, tmp_path / "c")

    assert fresh.is_current()
    rewind(town)
    hosts[0].set_beyond()
    fresh.mark_recovered()
    assert fresh.is_current()
