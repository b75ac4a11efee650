"""Redis comes back older, or empty: what was wished holds, no agent lives twice, what was lost is said."""

from collections.abc import Iterator

import pytest

from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.mail.events import read_latest
from gastown_mail.mail.send import Receipt, send_lifecycle
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.faults.test_several_hosts import KEEP, beats_twice, on, sessions_on, the_only
from tests.support.agents import MAX, MAXINE
from tests.support.daemon import Daemon, a_daemon
from tests.support.redis import OwnServer
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def pair(server: OwnServer) -> Iterator[list[Daemon]]:
    """Two running hosts on a Redis that the test may replace by an older copy."""
    toml = on(server.url, "pair", KEEP)
    with (
        a_daemon(toml, quiet=True, GASTOWN_HOST="a") as a,
        a_daemon(toml, quiet=True, GASTOWN_HOST="b") as b,
    ):
        for daemon in (a, b):
            daemon.up()
        yield [a, b]


@pytest.fixture
def single(server: OwnServer) -> Iterator[Daemon]:
    """One running host on such a Redis."""
    with a_daemon(on(server.url, "single", KEEP), quiet=True) as daemon:
        daemon.up()
        yield daemon


def rewinds(daemon: Daemon) -> list[str]:
    events = [event.fields["event"] for event in read_latest(daemon.redis, daemon.town.keys, 500)]
    return [event for event in events if event == "rewound"]


def test_a_shutdown_and_a_pause_hold_although_redis_forgot_them(single: Daemon, server: OwnServer) -> None:
    eventually(lambda: single.started(MAX) and single.started(MAXINE), deadline=DEADLINE)
    older = server.copy()
    assert send(single, "shutdown", MAX).wait(DEADLINE) == "done"
    assert single.command("pause", MAXINE).returncode == 0

    server.come_back_as(older)

    beats_twice(single)
    assert not sessions_on([single])
    assert {address: single.record(address).desired for address in (MAX, MAXINE)} == {
        MAX: Desired.STOPPED,
        MAXINE: Desired.PAUSED,
    }
    assert rewinds(single) == ["rewound"]


def test_the_end_of_a_pause_holds_too(single: Daemon, server: OwnServer) -> None:
    eventually(lambda: single.started(MAX), deadline=DEADLINE)
    single.command("pause", MAX)
    older = server.copy()
    single.command("resume", MAX)

    server.come_back_as(older)

    eventually(lambda: rewinds(single), deadline=DEADLINE)
    eventually(lambda: single.record(MAX).desired is None, deadline=DEADLINE)


def test_a_request_that_redis_has_open_again_is_not_done_again(single: Daemon, server: OwnServer) -> None:
    eventually(lambda: single.started(MAX), deadline=DEADLINE)
    first = single.living(MAX)
    worker = single.child("lifecycle-1"), single.child("lifecycle-2")
    for process in worker:
        process.suspend()
    receipt = send(single, "restart", MAX, incarnation=first.incarnation)
    eventually(lambda: receipt.status() == "received", deadline=DEADLINE)
    older = server.copy()
    for process in worker:
        process.resume()
    assert receipt.wait(DEADLINE) == "done"
    second = single.living(MAX)

    server.come_back_as(older)

    assert receipt.wait(DEADLINE) in ("done", "superseded")
    beats_twice(single)
    assert identity(single.living(MAX)) == identity(second)


def test_an_agent_that_moved_since_is_not_started_where_it_was(pair: list[Daemon], server: OwnServer) -> None:
    host, _ = the_only(pair)
    other = "b" if host == "a" else "a"
    older = server.copy()
    assert pair[0].command("move", MAX, other).returncode == 0
    eventually(lambda: [name for name, _ in sessions_on(pair)] == [other], deadline=DEADLINE)
    _, moved = the_only(pair)

    server.come_back_as(older)

    eventually(lambda: rewinds(pair[0]), deadline=DEADLINE)
    for _ in range(3):
        found, session = the_only(pair)
        assert (found, identity(session)) == (other, identity(moved))
    assert pair[0].record(MAX).host == other


def test_agents_without_a_host_stay_where_they_are_when_redis_is_emptied(
    pair: list[Daemon], server: OwnServer
) -> None:
    before = {address: the_only(pair, address) for address in (MAX, MAXINE)}

    pair[0].redis.flushall()

    eventually(lambda: rewinds(pair[0]), deadline=DEADLINE)
    for daemon in pair * 2:
        beats_twice(daemon)
    for address, (host, session) in before.items():
        found, living = the_only(pair, address)
        assert (found, identity(living)) == (host, identity(session))


def test_a_receipt_tells_what_was_lost(own_town: Town, server: OwnServer) -> None:
    clerk, keys = Clerk(own_town), own_town.keys
    clerk.serve_once(0.01)
    clerk.serve_once(0.01)

    def push(ident: str) -> Receipt:
        return send_lifecycle(
            "restart", agent=MAX, redis_url=server.url, town=keys.town, request_id=ident, environ={}
        )

    kept = push("kept")
    clerk.serve_once(0.01)
    older = server.copy()
    lost = push("lost")
    assert lost.status() == "accepted"

    server.come_back_as(older)

    own_town.redis.connection_pool.disconnect()
    assert lost.status() == "accepted", "nothing is known before the clerk has looked"
    late = push("late")
    for _ in range(3):
        clerk.serve_once(0.01)
    assert (kept.status(), lost.wait(5.0), late.status()) == ("received", "lost", "received")
    assert "send it again" in lost.detail()


def test_what_a_restarted_redis_still_has_is_never_called_lost(own_town: Town, server: OwnServer) -> None:
    clerk = Clerk(own_town)
    clerk.serve_once(0.01)
    receipt = send_lifecycle("restart", agent=MAX, redis_url=server.url, town=own_town.keys.town, environ={})
    server.kill()
    server.start_again()
    own_town.redis.connection_pool.disconnect()
    # a clerk that found the inbox empty just before the request came
    clerk.inbox.note_empty()

    seen = []
    for _ in range(4):
        seen.append(receipt.status())
        clerk.serve_once(0.01)

    assert seen == ["accepted", "received", "received", "received"]


def send(daemon: Daemon, action: str, address: str, incarnation: str = "") -> Receipt:
    """Send a request like one from inside the agent's session."""
    environ = {"GASTOWN_AGENT": address, "GASTOWN_INCARNATION": incarnation}
    town = daemon.town
    return send_lifecycle(
        action, agent=address, redis_url=town.redis_url, town=town.keys.town, environ=environ
    )
