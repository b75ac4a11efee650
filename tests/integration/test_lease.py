"""Leases: one owner at a time, until it releases the lease, it dies, or the lease expires."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from redis import Redis

from gastown_mail.plumbing.connections import connect
from gastown_mail.town.lease import LEASE_SECONDS, Lease, LeaseOwner, hold_lease, is_held
from tests.support.processes import kill
from tests.support.wait import eventually

HOST = "here"
HOLDER = """
import sys
from gastown_mail.town.lease import Lease
from gastown_mail.plumbing.connections import connect
print(Lease(connect(sys.argv[1]), sys.argv[2], "here").acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as connection:
        yield connection


@pytest.fixture
def key(request: pytest.FixtureRequest, redis: Redis) -> Iterator[str]:
    name = f"turn-of-{request.node.name}"
    yield name
    redis.delete(name)


@contextmanager
def a_holder(url: str, key: str) -> Iterator[psutil.Process]:
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_only_one_owner_holds_a_lease(redis: Redis, key: str) -> None:
    with hold_lease(redis, key, HOST) as mine, hold_lease(redis, key, HOST) as too:
        assert mine
        assert not too
        assert is_held(redis, key, HOST)

    assert not is_held(redis, key, HOST)
    with hold_lease(redis, key, HOST) as mine:
        assert mine


def test_the_lease_ends_with_the_block_in_any_case(redis: Redis, key: str) -> None:
    with pytest.raises(ZeroDivisionError), hold_lease(redis, key, HOST):
        raise ZeroDivisionError

    assert not redis.exists(key)


def test_the_same_owner_may_acquire_again(redis: Redis, key: str) -> None:
    right = Lease(redis, key, HOST)
    for _ in range(3):
        assert right.acquire()
        assert right.held
        right.release()
        assert not right.held


def test_acquiring_a_held_lease_again_succeeds(redis: Redis, key: str) -> None:
    right = Lease(redis, key, HOST)
    assert right.acquire()

    assert right.acquire()

    assert right.check_held()
    right.release()
    assert not redis.exists(key)


def test_releasing_a_lease_that_is_not_held_does_nothing(redis: Redis, key: str) -> None:
    with hold_lease(redis, key, HOST):
        other = Lease(redis, key, HOST)
        assert not other.acquire()

        other.release()
        Lease(redis, key, HOST).release()

        assert is_held(redis, key, HOST)


def test_an_owner_that_lost_the_lease_notices_and_does_not_take_it_back(redis: Redis, key: str) -> None:
    first, second = Lease(redis, key, HOST), Lease(redis, key, HOST)
    assert first.acquire()
    redis.delete(key)  # Like the end of the lease.
    assert second.acquire()

    assert not first.check_held()
    eventually(lambda: not first.held)
    first.release()

    assert second.check_held()
    second.release()


def test_the_lease_of_a_visibly_dead_owner_ends_at_once(redis: Redis, redis_url: str, key: str) -> None:
    with a_holder(redis_url, key) as holder:
        assert is_held(redis, key, HOST)

        kill(holder)  # Its parent has not noticed yet: a zombie is dead.

        assert redis.pttl(key) > 1000
        with hold_lease(redis, key, HOST) as mine:
            assert mine


def test_a_dead_owner_on_another_host_keeps_its_lease(redis: Redis, redis_url: str, key: str) -> None:
    with a_holder(redis_url, key) as holder:
        kill(holder)

        assert is_held(redis, key, "another host")
        assert not is_held(redis, key, HOST)


def test_a_stopped_owner_keeps_the_lease_until_it_ends(redis: Redis, redis_url: str, key: str) -> None:
    with a_holder(redis_url, key) as holder:
        holder.send_signal(signal.SIGSTOP)
        left = redis.pttl(key) / 1000
        begun = time.monotonic()

        def taken() -> bool:
            with hold_lease(redis, key, HOST) as mine:
                return mine is not None

        assert not taken()
        eventually(taken, deadline=LEASE_SECONDS + 10)
        assert time.monotonic() - begun > left - 0.5
        assert left > LEASE_SECONDS / 2


def test_a_held_lease_is_renewed(redis: Redis, redis_url: str, key: str) -> None:
    with a_holder(redis_url, key):
        begun = time.monotonic()
        before, renewals = redis.pttl(key), 0
        while time.monotonic() < begun + LEASE_SECONDS + 1:
            left = eventually(lambda: redis.pttl(key))
            assert left > 0
            renewals += left > before
            before = left

        assert renewals >= 3
        assert not Lease(redis, key, HOST).acquire()


def test_a_reused_pid_holds_no_lease(redis: Redis, key: str) -> None:
    me = LeaseOwner.me(HOST)
    redis.set(key, LeaseOwner(HOST, me.namespace, me.pid, me.started - 1000).token())

    assert not is_held(redis, key, HOST)


def test_an_invisible_owner_may_be_alive(redis: Redis, key: str) -> None:
    """A pid means nothing on another host or in another container."""
    me = LeaseOwner.me(HOST)
    dead = 2**22 + 1
    for token in (
        LeaseOwner("elsewhere", me.namespace, dead, 1.0).token(),
        LeaseOwner(HOST, "pid:[another container]", dead, 1.0).token(),
        "no holder at all",
    ):
        redis.set(key, token)
        assert is_held(redis, key, HOST)

    redis.set(key, LeaseOwner(HOST, me.namespace, dead, 1.0).token())
    assert not is_held(redis, key, HOST)


def test_a_token_names_its_owner() -> None:
    me = LeaseOwner.me(HOST)

    assert LeaseOwner.parse(me.token()) == me
    assert me.token() != me.token()
    assert not me.is_dead(HOST)
