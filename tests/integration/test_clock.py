"""The time of Redis, whatever this machine's clock says; the schedule goes by it too."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gastown_mail.daemon.schedule import PeriodicJob, TownScheduler, next_due, tick
from gastown_mail.plumbing import clock
from gastown_mail.plumbing.clock import RedisClock, redis_time
from gastown_mail.plumbing.connections import connect

JOB = PeriodicJob("clock_job", "gastown_mail.daemon.jobs.sweep", "gastown-clock-h1-heartbeat", 60.0, "a-lock")
TOWN, HOUR = "clock", 3600.0


def seconds_from(redis: Redis, moment: datetime) -> float:
    return moment.timestamp() - redis_time(redis)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as connection:
        yield connection


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """This machine's clock is an hour ahead."""
    step = timedelta(hours=1)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            return cls.fromtimestamp(time.time() + step.total_seconds(), tz)

    monkeypatch.setattr(clock, "datetime", Wrong)
    return step


def test_it_is_the_time_of_redis(redis: Redis, ahead: timedelta) -> None:
    assert abs(seconds_from(redis, RedisClock(redis).now())) < 1


def test_what_this_machine_dates_is_translated(redis: Redis, ahead: timedelta) -> None:
    local = datetime.now(UTC) + ahead - timedelta(seconds=90)

    assert abs(seconds_from(redis, RedisClock(redis).translate(local)) + 90) < 1


def test_what_lies_in_the_future_is_taken_for_now(redis: Redis) -> None:
    local = datetime.now(UTC) + timedelta(minutes=10)

    assert abs(seconds_from(redis, RedisClock(redis).translate(local))) < 1


def test_without_an_answer_there_is_an_error_or_the_local_time() -> None:
    silent = RedisClock(Redis(port=1))

    with pytest.raises(RedisConnectionError):
        silent.now()
    assert abs((silent.now_or_local() - datetime.now(UTC)).total_seconds()) < 1


def test_a_job_that_is_due_later_than_its_interval_becomes_due(redis: Redis) -> None:
    scheduler = TownScheduler(TOWN, redis)
    tick(scheduler, [JOB])
    first = next_due(TOWN, redis, JOB.job_id)
    assert first
    assert 55 < seconds_from(redis, first) <= 60
    redis.delete(f"rq:queue:{JOB.queue}")

    redis.zadd(scheduler.scheduled_jobs_key, {JOB.job_id: redis_time(redis) + 600})
    tick(scheduler, [JOB])

    assert redis.llen(f"rq:queue:{JOB.queue}") == 1
    again = next_due(TOWN, redis, JOB.job_id)
    assert again
    assert 55 < seconds_from(redis, again) <= 60


def test_the_schedule_goes_by_the_time_of_redis(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + HOUR)
    scheduler = TownScheduler(TOWN, redis)

    tick(scheduler, [JOB])

    due = next_due(TOWN, redis, JOB.job_id)
    assert due
    assert 55 < seconds_from(redis, due) <= 60
