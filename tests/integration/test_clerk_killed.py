"""The clerk may be killed, stopped or starved: every element is accepted once and none is left behind."""

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import redis

from gastown_mail.mail import events
from gastown_mail.plumbing.connections import connect
from gastown_mail.town.town import Town
from tests.support.parts import CLERK, running
from tests.support.processes import kill, lives
from tests.support.redis import OwnServer
from tests.support.town import element
from tests.support.wait import eventually

STREAM = 300


def ids(first: int, count: int) -> list[str]:
    return [f"{number:04}" for number in range(first, first + count)]


def push(town: Town, *idents: str) -> None:
    town.redis.rpush(town.keys.inbox, *(element(id=ident) for ident in idents))


@contextmanager
def a_stream(town: Town) -> Iterator[None]:
    """Push elements while the block runs; all are pushed at its end."""
    with connect(town.redis_url) as feed:

        def pour() -> None:
            for ident in ids(0, STREAM):
                feed.rpush(town.keys.inbox, element(id=ident))

        pouring = threading.Thread(target=pour)
        pouring.start()
        yield
        pouring.join(30)


def accepted(town: Town) -> int:
    return len(town.requests.unsettled())


def each_was_accepted_once(town: Town, wanted: list[str]) -> bool:
    told = Counter(
        event.fields["request"]
        for event in events.read_after(town.redis, town.keys, "0-0", most=5000)
        if event.fields["event"] == "received"
    )
    jobs = town.queues.lifecycle(town.host).get_job_ids()
    assert told == Counter(wanted)
    assert sorted(jobs) == sorted(town.keys.job_id("request", ident) for ident in wanted)
    assert sorted(town.requests.unsettled()) == sorted(wanted)
    return not town.redis.exists(town.keys.inbox, town.keys.taken)


def test_a_clerk_killed_at_any_moment_of_a_stream_loses_nothing(town: Town) -> None:
    with a_stream(town):
        for _ in range(5):
            with running(CLERK, town.settings, town.redis_url) as clerk:
                goal = accepted(town) + random.randint(1, 40)
                eventually(lambda goal=goal: accepted(town) >= min(goal, STREAM), deadline=60)  # type: ignore[misc]
                kill(clerk)

    with running(CLERK, town.settings, town.redis_url):
        eventually(lambda: accepted(town) == STREAM, deadline=60)
        eventually(lambda: not town.redis.exists(town.keys.inbox, town.keys.taken), deadline=60)

    assert each_was_accepted_once(town, ids(0, STREAM))
    assert town.requests.pending("gastown/witness") == ids(0, STREAM)


def test_each_element_is_always_in_exactly_one_place_with_its_job(town: Town) -> None:
    """Accepting is one transaction: the record, the job, and the removal from `taken`."""
    push(town, *ids(0, STREAM))
    keys, queue, seen = town.keys, town.queues.lifecycle(town.host).key, set()
    with running(CLERK, town.settings, town.redis_url), town.redis.pipeline() as pipe:
        while STREAM not in seen:
            for read, key in (
                (pipe.llen, keys.inbox), (pipe.llen, keys.taken), (pipe.zcard, keys.unsettled),
                (pipe.llen, queue), (pipe.zcard, keys.pending("gastown/witness")),
            ):  # fmt: skip
                read(key)
            inbox, taken, opened, queued, waiting = pipe.execute()

            assert inbox + taken + opened == STREAM
            assert opened == queued == waiting
            seen.add(opened)


@contextmanager
def two_clerks(town: Town) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A clerk that reads, and one that waits for its lease."""
    with (
        running(CLERK, town.settings, town.redis_url) as first,
        running(CLERK, town.settings, town.redis_url) as second,
    ):
        holder = eventually(lambda: town.redis.get(town.keys.clerk), deadline=60)
        assert isinstance(holder, bytes)
        yield (first, second) if f"|{first.pid}|".encode() in holder else (second, first)


def test_a_second_clerk_takes_over_from_a_killed_one_at_once(town: Town) -> None:
    with two_clerks(town) as (reader, other):
        push(town, *ids(0, 20))
        eventually(lambda: accepted(town) == 20, deadline=60)

        kill(reader)
        push(town, *ids(20, 20))

        # Less than the dead clerk's lease: its death is noticed.
        eventually(lambda: accepted(town) == 40, deadline=8)
        assert lives(other)
    assert each_was_accepted_once(town, ids(0, 40))


def test_a_second_clerk_takes_over_after_the_lease_and_the_stopped_one_does_no_harm(
    town: Town,
) -> None:
    with two_clerks(town) as (reader, other):
        push(town, *ids(0, 20))
        eventually(lambda: accepted(town) > 0, deadline=60)
        reader.send_signal(signal.SIGSTOP)
        push(town, *ids(20, 100))

        eventually(lambda: accepted(town) == 120, deadline=40)
        reader.send_signal(signal.SIGCONT)
        push(town, *ids(120, 20))

        eventually(lambda: accepted(town) == 140, deadline=40)
        eventually(lambda: not town.redis.exists(town.keys.inbox, town.keys.taken))
        assert lives(reader)
        assert lives(other)
    assert each_was_accepted_once(town, ids(0, 140))


def test_a_redis_that_is_killed_in_the_middle_loses_nothing(own_town: Town, server: OwnServer) -> None:
    with running(CLERK, own_town.settings, own_town.redis_url) as clerk:
        push(own_town, *ids(0, 150))
        eventually(lambda: accepted(own_town) > 0, deadline=60)

        server.kill()
        server.start_again()
        push(own_town, *ids(150, 150))

        eventually(lambda: accepted(own_town) == 300, deadline=60)
        assert lives(clerk)
    assert each_was_accepted_once(own_town, ids(0, 300))


def test_a_redis_that_does_not_answer_for_a_while_loses_nothing(own_town: Town, server: OwnServer) -> None:
    with running(CLERK, own_town.settings, own_town.redis_url) as clerk:
        push(own_town, *ids(0, 1))
        eventually(lambda: accepted(own_town) == 1, deadline=60)

        with server.frozen(), pytest.raises(redis.TimeoutError):
            own_town.redis.ping()  # This client waits longer than the clerk.
        push(own_town, *ids(1, 50))

        eventually(lambda: accepted(own_town) == 51, deadline=60)
        assert lives(clerk)
    assert each_was_accepted_once(own_town, ids(0, 51))


def test_an_emptied_redis_does_not_stop_the_clerk(own_town: Town) -> None:
    with running(CLERK, own_town.settings, own_town.redis_url) as clerk:
        push(own_town, "before")
        eventually(lambda: accepted(own_town) == 1, deadline=60)

        own_town.redis.flushall()
        push(own_town, "after")

        eventually(lambda: list(own_town.requests.unsettled()) == ["after"], deadline=60)
        assert lives(clerk)


def test_a_broken_town_toml_does_not_stop_the_clerk(town: Town) -> None:
    with running(CLERK, town.settings, town.redis_url) as clerk:
        push(town, "before")
        eventually(lambda: accepted(town) == 1, deadline=60)

        (town.settings.town_root / "town.toml").write_text("not [ toml")
        for ident in ids(0, 3):
            push(town, ident)
            eventually(lambda ident=ident: ident in town.requests.unsettled(), deadline=60)  # type: ignore[misc]

        assert lives(clerk)
