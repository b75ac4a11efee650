"""Encrypted connections, replicas that confirm, Redis Cluster: the parts of a Redis with failover."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from gastown_mail.contracts.errors import GastownError, Postponed, RequestNotAccepted, SettingsError
from gastown_mail.contracts.redis_url import redis_url_error
from gastown_mail.daemon.service import open_redis
from gastown_mail.mail.send import send_lifecycle
from gastown_mail.plumbing.connections import connect
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.health import all_problems
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.support.agents import MAX, TWO_AGENTS
from tests.support.failover import Server, data_server
from tests.support.processes import clean_environ
from tests.support.redis import OwnServer
from tests.support.tls import TlsFront, tls_front
from tests.support.town import a_town, write_town
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(180)

CONNECTIONS = 200


@pytest.fixture
def front(server: OwnServer, tmp_path: Path) -> Iterator[TlsFront]:
    with tls_front(tmp_path, server.folder / "redis.sock") as front:
        yield front


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Server]:
    """A node of a Redis Cluster."""
    server = data_server(tmp_path / "node", cluster_enabled="yes")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A primary and its replica, in step."""
    primary = data_server(tmp_path / "primary")
    replica = data_server(tmp_path / "replica", replicaof=f"127.0.0.1 {primary.port}")
    try:
        for server in (primary, replica):
            server.start()
        eventually(lambda: replica.linked(), deadline=DEADLINE)
        yield primary, replica
    finally:
        for server in (replica, primary):
            server.kill()


@pytest.mark.parametrize("password", ["", "s3cret"], ids=["without a password", "with a password"])
def test_every_encrypted_connection_works(front: TlsFront, server: OwnServer, password: str) -> None:
    if password:
        with connect(server.url) as plain:
            plain.config_set("requirepass", password)

    answers = []
    for _ in range(CONNECTIONS):
        with connect(front.url(f":{password}" if password else "")) as redis:
            answers.append(redis.ping())

    assert answers == [True] * CONNECTIONS


def test_a_server_of_an_unknown_authority_is_refused_in_words(front: TlsFront) -> None:
    with pytest.raises(RequestNotAccepted, match="certificate that this machine does not trust") as refused:
        send_lifecycle(
            "restart", agent=MAX, redis_url=f"rediss://localhost:{front.port}", town="t", environ={}
        )
    assert "ssl_ca_certs" in str(refused.value)


def test_a_request_over_tls(front: TlsFront, server: OwnServer) -> None:
    send_lifecycle("restart", agent=MAX, redis_url=front.url(), town="t", environ={})

    with connect(server.url) as redis:
        assert redis.llen("gastown:{t}:inbox") == 1


def test_without_a_primary_the_error_is_one_short_sentence() -> None:
    with pytest.raises(RequestNotAccepted) as refused:
        send_lifecycle(
            "restart",
            agent=MAX,
            redis_url="sentinel://:pw@127.0.0.1:1,127.0.0.1:2/town",
            town="t",
            environ={},
        )

    said = str(refused.value)
    assert "has no primary at the moment: if that lasts, check that its Sentinels run" in said
    assert "<" not in said
    assert "pw" not in said


def test_a_redis_cluster_is_refused_at_the_start(cluster: Server, tmp_path: Path) -> None:
    settings = write_town(tmp_path, f'[daemon]\nredis_url = "redis://127.0.0.1:{cluster.port}"\n')

    with pytest.raises(SettingsError, match="is a Redis Cluster, and rq does not work on one") as refused:
        open_redis(settings)

    assert refused.value.exit_code == 2


def test_a_request_counts_as_accepted_when_a_replica_has_it(pair: tuple[Server, Server]) -> None:
    primary, replica = pair

    def send(ident: str) -> None:
        send_lifecycle(
            "restart", agent=MAX, redis_url=f"redis://127.0.0.1:{primary.port}", town="t", request_id=ident,
            environ={"GASTOWN_MIN_REPLICAS": "1"},
        )  # fmt: skip

    send("one")
    with replica.client as redis:
        assert redis.llen("gastown:{t}:inbox") == 1
    replica.cut_off()
    with pytest.raises(RequestNotAccepted, match="not safe yet: fewer than 1 replicas"):
        send("two")
    replica.join_again()
    eventually(lambda: replica.linked(), deadline=DEADLINE)
    send("two")


def test_the_command_asks_for_the_replicas_of_the_settings(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, replica = pair
    url = f'redis_url = "redis://127.0.0.1:{primary.port}"'
    settings = write_town(tmp_path, f"[daemon]\nmin_replicas = 1\n{url}\n{TWO_AGENTS}")
    replica.cut_off()

    words = ["-m", "gastown_mail", "send", "restart", "--agent", "operator", "--to", MAX]
    refused = subprocess.run(
        [sys.executable, *words], cwd=settings.town_root, env=clean_environ(), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip

    assert refused.returncode == 3
    assert "not safe yet: fewer than 1 replicas" in refused.stderr


def said_missing(town: Town) -> bool:
    daemon = town.settings.daemon.model_copy(update={"redis_url": town.redis_url})
    report = StatusCollector(town.settings.model_copy(update={"daemon": daemon})).report()
    return ("redis", "a replica of Redis is missing") in [
        (check, problem.reason) for check, problem in all_problems(report)
    ]


def test_a_wish_and_an_intent_wait_for_a_replica(pair: tuple[Server, Server], tmp_path: Path) -> None:
    primary, replica = pair
    toml = f"[daemon]\nmin_replicas = 1\n{TWO_AGENTS}"
    with a_town(tmp_path, f"redis://127.0.0.1:{primary.port}", toml) as town:
        town.desired.set(MAX, Desired.STOPPED)
        with replica.client as redis:
            assert redis.hget(town.keys.agent(MAX), "desired") == b"stopped"
        replica.cut_off()
        eventually(lambda: said_missing(town), deadline=DEADLINE)
        with pytest.raises(Postponed, match="0 of at least 1 replicas"):
            town.desired.set(MAX, Desired.RUNNING)
        with pytest.raises(Postponed, match="0 of at least 1 replicas"):
            town.confirm()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://a:1,b:2,c/town", None),
        ("sentinel://u:p@a,b/town?db=3&tls=true&ssl_ca_certs=/x", None),
        ("sentinel://a,b", "must name the service"),
        ("sentinel://a,b/town/more", "must name the service"),
        ("sentinel://a,/town", "'' is not a Sentinel's host"),
        ("sentinel://a:99999/town", "Port out of range"),
        ("sentinel://a/town?tls=perhaps", "tls must be true or false"),
        ("sentinel://a/town?dbb=3", "unknown option 'dbb'"),
        ("sentinel://a/town?db=x", "the database (db) must be a number"),
    ],
)
def test_the_forms_of_a_sentinel_url(url: str, words: str | None) -> None:
    error = redis_url_error(url)

    assert error is None if words is None else words in str(error)


def test_a_town_without_replicas_waits_for_none(own_town: Town) -> None:
    own_town.confirm()

    assert isinstance(own_town.redis, Redis)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """A server with two databases, for two clients."""
    server = data_server(tmp_path / "small", databases="2", maxclients="2")
    server.start()
    yield server
    server.kill()


def test_a_database_that_is_not_there(small: Server) -> None:
    with pytest.raises(GastownError, match=r"does not have that database: choose a lower number"):
        send_lifecycle(
            "restart", agent=MAX, redis_url=f"redis://127.0.0.1:{small.port}/99", town="t", environ={}
        )


def test_a_redis_with_too_many_clients(small: Server) -> None:
    with small.client as one, small.client as two:
        one.ping()
        two.ping()
        with pytest.raises(RequestNotAccepted, match=r"raise its maxclients"):
            send_lifecycle(
                "restart", agent=MAX, redis_url=f"redis://127.0.0.1:{small.port}", town="t", environ={}
            )
