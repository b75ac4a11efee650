"""The time by which processes compare: that of Redis, so that no machine's own clock decides anything."""

import math
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

_MEASURE_EVERY = 2.0
"""Seconds after which Redis is asked again; between two answers a clock counts that nobody can set."""


class Clock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    def now_or_local(self) -> datetime:
        """The time, or that of this machine if there is no better one."""
        return self.now()

    def translate(self, local: datetime) -> datetime:
        """The time of what happened at `local` by this machine's clock; never in the future."""
        return min(self.now(), local)


class RedisClock(Clock):
    """The clock of a Redis. `now` raises RedisError if it has never answered."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._asked = -math.inf
        self._answer: tuple[float, float] | None = None

    def now(self) -> datetime:
        """The time of Redis."""
        if self._answer is None or _elapsed() - self._answer[1] > _MEASURE_EVERY:
            self._asked = _elapsed()
            self._answer = (redis_time(self._redis), _elapsed())
        return self._reckon(*self._answer)

    def now_or_local(self) -> datetime:
        """The time of Redis, or that of this machine if Redis does not answer."""
        # a Redis that was silent just now is not waited for again
        if self._answer or _elapsed() - self._asked > _MEASURE_EVERY:
            with suppress(RedisError):
                return self.now()
        return self._reckon(*self._answer) if self._answer else datetime.now(UTC)

    def translate(self, local: datetime) -> datetime:
        """The time of Redis of what happened at `local` by this machine's clock; never in the future."""
        now = self.now_or_local()
        # in tenths: the same moment does not differ from look to look by what an answer took
        ahead = round((now - datetime.now(UTC)).total_seconds(), 1)
        return min(now, local + timedelta(seconds=ahead))

    @staticmethod
    def _reckon(then: float, at: float) -> datetime:
        return datetime.fromtimestamp(then + _elapsed() - at, UTC)


def redis_time(redis: Redis) -> float:
    """The time of Redis in epoch seconds. Raises RedisError."""
    seconds, micros = redis.time()
    return float(seconds) + float(micros) / 1e6


def _elapsed() -> float:
    # unlike the monotonic clock, this one counts while the machine sleeps
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
