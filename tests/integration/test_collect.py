"""The report of a town whose parts answer, or do not, as the test says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from gastown_mail.cli.control import _placed
from gastown_mail.contracts.errors import GastownError, RedisUnavailable, StateUnknown
from gastown_mail.daemon.jobs import make_worker
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.explain import explain_agent
from gastown_mail.status.health import missing_workers
from gastown_mail.status.host_checks import check_hosts
from gastown_mail.town.hosts import HostEntry
from gastown_mail.town.lease import Lease
from gastown_mail.town.records import AgentRecord
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

    assert sorted(report.unknown) == ["mail"]
    assert report.mail is None
    assert {row.observed for row in report.agents or ()} == {"none"}
    damaged = {row.agent: row.damage for row in report.agents or () if row.desired == "unknown"}
    assert list(damaged) == [MAX]
    assert "last_poke" in str(damaged[MAX])
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


def checked(collector: StatusCollector) -> list[tuple[str, str]]:
    return [(result.verdict, result.text) for result in check_hosts(collector)]


def test_one_host_agrees_with_itself(collector: StatusCollector) -> None:
    collector.town.report_host()

    assert checked(collector) == [("ok", f"alive: {collector.town.host}")]


def test_what_hosts_disagree_on_is_found(collector: StatusCollector) -> None:
    town, here = collector.town, collector.town.host
    town.report_host()
    for host, digest in (("b", "other"), ("c", "")):
        town.hosts.report(host, HostEntry(machine=host, town_toml=digest))
    town.redis.hset(town.keys.host("b"), "clock_ahead", "-42.0")
    town.redis.hset(town.keys.host("c"), "clock_ahead", "4.0")

    *findings, alive = checked(collector)

    both = " | ".join(sorted([here, "b"]))
    assert findings == [
        ("finding", "town.toml cannot be read on c; gastown-mail doctor there says why"),
        (
            "finding",
            f"town.toml differs between hosts ({both}); put the same file on all, for instance by git",
        ),
        (
            "finding",
            "the clock of host b is 42 s behind that of Redis; use the same time server (NTP) for both",
        ),
        (
            "finding",
            f"no host in town.toml for {WITNESS}, {MAX}: whichever host looks first starts them, and there "
            "they stay; with several hosts, say where each lives (host = …)",
        ),
    ]
    assert alive == ("ok", f"alive: {', '.join(sorted([here, 'b', 'c']))}")


def test_clocks_that_are_apart_only_from_one_another_are_found(collector: StatusCollector) -> None:
    town = collector.town
    for host, ahead in (("b", "3.5"), ("c", "-3.5")):
        town.hosts.report(host, HostEntry(machine=host))
        town.redis.hset(town.keys.host(host), "clock_ahead", ahead)

    found = [text for verdict, text in checked(collector) if verdict == "finding" and "clock" in text]

    assert found == ["the clocks of hosts c and b are 7 s apart; use the same time server (NTP) for both"]


def test_this_hosts_own_clock_is_left_to_its_own_check(collector: StatusCollector) -> None:
    town = collector.town
    town.report_host()
    town.redis.hset(town.keys.host(town.host), "clock_ahead", "42.0")

    assert checked(collector) == [("ok", f"alive: {town.host}")]


def falls_silent(town: Town, host: str) -> None:
    town.hosts.report(host, HostEntry(machine=host))
    town.hosts.report_end(host)
    town.redis.zincrby(town.keys.hosts, -60, host)


def next_steps(collector: StatusCollector, address: str) -> str:
    """What `explain` advises while a daemon runs."""
    collector.town.state.mark_started(1, collector.now)
    return "\n".join(explain_agent(collector, collector.town.roster().resolve(address)).next_steps)


def test_each_agent_of_a_silent_host_gets_the_way_on_for_itself(collector: StatusCollector) -> None:
    town = collector.town
    falls_silent(town, "far")
    for address in (WITNESS, MAX):
        town.agents.write(address, AgentRecord(incarnation="t", machine="far", host="far"))

    for address, other in ((WITNESS, MAX), (MAX, WITNESS)):
        steps = next_steps(collector, address)
        assert f"gastown-mail move {address} HOST --from-dead" in steps
        assert f"gastown-mail move {other}" not in steps
        assert "ask on host" not in steps


def test_run_names_the_silent_host_and_the_way_on(collector: StatusCollector) -> None:
    town = collector.town
    falls_silent(town, "far")
    town.agents.write(MAX, AgentRecord(incarnation="t", machine="far", host="far"))

    with pytest.raises(GastownError, match=f"host far, where {MAX} is .*move {MAX} HOST --from-dead"):
        _placed(town, MAX)


def test_an_agent_on_a_living_host_is_asked_for_there(collector: StatusCollector) -> None:
    town = collector.town
    town.hosts.report("far", HostEntry(machine="far"))
    town.agents.write(MAX, AgentRecord(incarnation="t", machine="far", host="far"))

    assert "ask on host far, where it lives" in next_steps(collector, MAX)


@pytest.mark.parametrize("declared", ["near", ""])
def test_an_agent_is_believed_where_it_lives_not_where_it_belongs(
    tmp_path: Path, server: OwnServer, declared: str
) -> None:
    text = f'[daemon]\nredis_url = "{server.url}"\nhost = "here"\n{TWO_HOSTS}'.replace(
        '"far"', f'"{declared or "here"}"'
    )
    with a_town(tmp_path, server.url, text) as town:
        falls_silent(town, "far")
        town.agents.write(WITNESS, AgentRecord(incarnation="t", machine="far", host="far"))
        collector = StatusCollector(town.settings)

        (row,) = [row for row in collector.report().agents or () if row.agent == WITNESS]
        steps = next_steps(collector, WITNESS)

    assert (row.observed, row.host) == ("elsewhere", "far")
    assert "host far has been silent" in steps
    assert "ask on host" not in steps


def test_agents_on_a_silent_host_are_named_with_the_way_on(collector: StatusCollector) -> None:
    town = collector.town
    town.hosts.report("far", HostEntry(machine="far"))
    town.agents.write(MAX, AgentRecord(incarnation="t", machine="far", host="far"))
    assert not any("silent" in problem.reason for problem in missing_workers(collector.report()))

    town.hosts.report_end("far")
    town.redis.zincrby(town.keys.hosts, -60, "far")

    (problem,) = [found for found in missing_workers(collector.report()) if "far" in found.reason]
    assert problem.reason.startswith("host far has been silent for 1m")
    assert problem.reason.endswith(f"and {MAX} may live there")
    assert f"gastown-mail move {MAX} HOST --from-dead" in problem.remedy


def test_a_clerk_that_makes_no_headway_is_seen_and_one_that_does_is_not(own_town: Town) -> None:
    keys, redis, collector = own_town.keys, own_town.redis, StatusCollector(own_town.settings)
    collector.town = own_town
    own_town.redis.rpush(keys.inbox, b"{}")
    assert Lease(redis, keys.clerk, own_town.host).acquire()
    now = redis_time(redis)

    redis.set(keys.accepted, now - 60)
    waits = collector.inbox().stalled
    redis.set(keys.accepted, now)
    works = collector.inbox().stalled
    redis.set(keys.accepted, now - 60)
    redis.delete(keys.inbox)
    has_nothing_to_do = collector.inbox().stalled

    assert waits is not None
    assert waits > 59
    assert (works, has_nothing_to_do) == (None, None)
