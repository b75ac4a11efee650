"""The report of a town whose parts answer, or do not, as the test says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, StateUnknown
from gastown_mail.daemon.jobs import make_worker
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.health import missing_workers
from gastown_mail.town.town import Town
from tests.support.agents import MAX, TWO_AGENTS, WITNESS
from tests.support.redis import OwnServer
from tests.support.town import a_town


@pytest.fixture
def collector(own_town: Town, server: OwnServer) -> Iterator[StatusCollector]:
    """A collector of a town on a Redis of the test's own."""
    daemon = own_town.settings.daemon.model_copy(update={"redis_url": server.url})
    made = StatusCollector(own_town.settings.model_copy(update={"daemon": daemon}))
    with made.town.redis:
        yield made


def fails(error: Exception) -> None:
    raise error


def test_a_silent_redis_is_not_asked_again(collector: StatusCollector) -> None:
    asked: list[str] = []

    collector.ask_redis("redis", lambda: fails(RedisUnavailable("it stands still")))

    assert collector.ask_redis("mail", lambda: asked.append("mail")) is None
    assert asked == []
    assert collector.unknown == {"redis": "it stands still"}
    assert isinstance(collector.failure, RedisUnavailable)


def test_one_unreadable_part_does_not_hide_the_others(collector: StatusCollector) -> None:
    collector.ask_redis("mail", lambda: fails(ResponseError("WRONGTYPE")))

    assert collector.ask_redis("workers", lambda: "two") == "two"
    assert collector.unknown == {"mail": str(collector.failure)}
    assert type(collector.failure) is GastownError
    assert "holds another type of value under a key of this town (WRONGTYPE)" in str(collector.failure)


def test_keys_of_another_type_and_records_of_another_shape_are_unknown_parts(
    collector: StatusCollector,
) -> None:
    keys, redis = collector.town.keys, collector.town.redis
    redis.set(keys.inbox, "no list")
    redis.hset(keys.agent(MAX), "last_poke", "yesterday")

    report = collector.report()

    assert sorted(report.unknown) == ["mail", "records"]
    assert report.mail is None
    assert {row.observed for row in report.agents or ()} == {"none"}
    assert {row.desired for row in report.agents or ()} == {"unknown"}
    assert report.hosts


def test_a_frozen_redis_and_a_missing_tmux_are_reported(
    collector: StatusCollector, server: OwnServer
) -> None:
    collector.town.sessions.tmux.environ["PATH"] = "/nowhere"

    with server.frozen():
        report = collector.report()

    assert "did not answer in time" in report.unknown["redis"]
    assert "no tmux on PATH" in report.unknown["tmux"]
    assert {row.observed for row in report.agents or ()} == {"unknown"}
    assert not isinstance(collector.failure, StateUnknown), "the first failure is what a command fails with"


TWO_HOSTS = TWO_AGENTS.replace('[agents."gastown/witness"]', '[agents."gastown/witness"]\nhost = "far"')


def test_live_workers_are_counted_by_host(tmp_path: Path, server: OwnServer) -> None:
    with a_town(tmp_path, server.url, f'[daemon]\nredis_url = "{server.url}"\n{TWO_HOSTS}') as town:
        queue = town.keys.lifecycle_queue("far")
        works, silent = (make_worker(town, name, queue, town.redis) for name in ("works", "silent"))
        for one in (works, silent):
            one.register_birth()  # type: ignore[no-untyped-call]
        town.redis.hset(silent.key, "last_heartbeat", "2025-12-20T12:00:00.000000Z")

        report = StatusCollector(town.settings).report()

    here, far = sorted(report.hosts or (), key=lambda host: not host.here)
    assert (here.host, here.lifecycle, here.expected) == (town.host, 0, 2)
    assert (far.host, far.lifecycle, far.expected, far.heartbeat) == ("far", 1, None, 0)
    assert {row.agent: row.observed for row in report.agents or ()} == {WITNESS: "elsewhere", MAX: "none"}
    assert "no heartbeat worker on far" in [trouble.reason for trouble in missing_workers(report)]
