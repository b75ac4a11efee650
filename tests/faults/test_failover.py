"""A Redis with Sentinels fails over under a running town: nothing is lost unsaid, no agent lives twice."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import RequestNotAccepted
from gastown_mail.contracts.lifecycle import FINAL_STATUSES
from gastown_mail.mail.send import LOST, Receipt, send_lifecycle
from gastown_mail.town.records import Desired
from tests.faults.test_several_hosts import KEEP, beats_twice, on, sessions_on
from tests.support.agents import MAX, MAXINE
from tests.support.daemon import Daemon, a_daemon
from tests.support.failover import SERVICE, Failover, failover
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)

REQUESTS = 200
RESTARTS = 20
"""Every how many requests a restart is asked for; the others are refused, which is as much work for Redis."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Failover]:
    """A primary with one replica."""
    with failover(tmp_path) as servers:
        yield servers


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Failover]:
    """A primary with two replicas, so that one is left after a failover."""
    with failover(tmp_path, replicas=2) as servers:
        yield servers


@contextmanager
def a_town_on(servers: Failover, min_replicas: int) -> Iterator[Daemon]:
    toml = KEEP.replace("[daemon]", f"[daemon]\nmin_replicas = {min_replicas}")
    with a_daemon(on(servers.url, "failover", toml), quiet=True) as daemon:
        daemon.up()
        eventually(lambda: daemon.started(MAX) and daemon.started(MAXINE), deadline=DEADLINE)
        yield daemon


def send(daemon: Daemon, ident: str, action: str = "restart", min_replicas: int = 0) -> Receipt:
    """Ask for a restart, or for a cycle that the asker has no right to."""
    return send_lifecycle(
        action, agent=MAXINE if action == "cycle" else "operator", to=MAX, redis_url=daemon.town.redis_url,
        town=daemon.town.keys.town, request_id=ident, environ={"GASTOWN_MIN_REPLICAS": str(min_replicas)},
    )  # fmt: skip


def send_until_accepted(daemon: Daemon, ident: str, action: str, min_replicas: int) -> Receipt:
    """Send a request; if that fails, again with the same id, as the error says."""

    def accepted() -> Receipt | None:
        try:
            return send(daemon, ident, action, min_replicas=min_replicas)
        except RequestNotAccepted:
            return None

    receipt = eventually(accepted, deadline=DEADLINE)
    assert receipt is not None
    return receipt


def outcome(receipt: Receipt) -> str:
    status = receipt.wait(2 * DEADLINE)
    assert status in (*FINAL_STATUSES, LOST), f"{receipt.id} is {status}: {receipt.detail()}"
    return status


def starts(daemon: Daemon) -> int:
    return len(daemon.starts(MAX))


@pytest.mark.parametrize("min_replicas", [0, 1])
def test_the_primary_is_killed_under_requests(three: Failover, min_replicas: int) -> None:
    with a_town_on(three, min_replicas) as daemon:
        first, maxine = starts(daemon), identity(daemon.living(MAXINE))
        receipts = []
        for number in range(REQUESTS):
            action = "cycle" if number % RESTARTS else "restart"
            receipts.append(send_until_accepted(daemon, f"r{number}", action, min_replicas))
            if number == REQUESTS // 2:
                three.primary.kill()

        ends = Counter(outcome(receipt) for receipt in receipts)

        assert any(replica.is_primary() for replica in three.replicas)
        assert min_replicas == 0 or ends[LOST] == 0, ends
        beats_twice(daemon)
        ((_, living),) = sessions_on([daemon])
        assert starts(daemon) - first == daemon.record(MAX).restarts - 1, "each start is on record, once"
        assert identity(daemon.living(MAXINE)) == maxine
        assert living.incarnation == daemon.record(MAX).incarnation


def test_a_replica_that_lagged_takes_over(servers: Failover) -> None:
    with a_town_on(servers, 0) as daemon:
        sessions = {address: identity(daemon.living(address)) for address in (MAX, MAXINE)}
        servers.replica.cut_off()
        daemon.town.desired.pause(MAXINE)
        lost = send(daemon, "lost", "cycle")
        assert outcome(lost) == "refused"
        servers.primary.kill()
        servers.replica.join_again()

        eventually(servers.replica.is_primary, deadline=DEADLINE)

        assert lost.wait(DEADLINE) == LOST
        eventually(lambda: daemon.record(MAXINE).desired is Desired.PAUSED, deadline=DEADLINE)
        beats_twice(daemon)
        assert {address: identity(daemon.living(address)) for address in sessions} == sessions
        assert outcome(send(daemon, "after")) == "done"


def test_rq_info_finds_the_primary_by_the_sentinels(servers: Failover) -> None:
    with a_town_on(servers, 0) as daemon:
        hosts = [("127.0.0.1", sentinel.port) for sentinel in servers.sentinels]
        settings = {"INSTANCES": hosts, "MASTER_NAME": SERVICE}
        (daemon.root / "town_rq.py").write_text(f"SENTINEL = {settings!r}\n")

        said = daemon.python("-m", "rq.cli", "info", "--config", "town_rq")

        assert said.popen.wait(DEADLINE) == 0, said.words()
        assert f"{daemon.town.keys.town}-lifecycle-1" in said.words()


def test_with_one_replica_nothing_is_accepted_or_begun_that_only_the_primary_has(servers: Failover) -> None:
    with a_town_on(servers, 1) as daemon:
        before = identity(daemon.living(MAX))
        servers.replica.cut_off()
        with pytest.raises(RequestNotAccepted, match="not safe yet"):
            send(daemon, "early", min_replicas=1)
        early = Receipt("early", daemon.town.redis_url, daemon.town.keys.town)
        eventually(lambda: "0 of at least 1 replicas" in early.detail(), deadline=DEADLINE)
        assert identity(daemon.living(MAX)) == before

        servers.replica.join_again()

        assert outcome(early) == "done"
        assert identity(daemon.living(MAX)) != before
