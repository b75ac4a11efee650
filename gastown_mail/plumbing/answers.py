"""Redis' answers as text, and text as what Redis takes: redis-py's own types cover every setting it has."""

from collections.abc import Iterable, Mapping
from typing import Any

from redis import Redis

RedisFields = dict[Any, Any]
"""What HSET and XADD take."""


def to_str(answer: Any) -> str:
    """One answer as text, "" for nothing; bytes that are no UTF-8 come out marked."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer or "")


def to_strs(answers: Iterable[Any]) -> list[str]:
    """A list of answers as text."""
    return [to_str(answer) for answer in answers]


def to_str_dict(answer: Mapping[Any, Any]) -> dict[str, str]:
    """A hash as text."""
    return {to_str(name): to_str(value) for name, value in answer.items()}


def to_fields(values: Mapping[str, object]) -> RedisFields:
    """What HSET and XADD take: every value as its text."""
    return {name: value if isinstance(value, bytes) else str(value) for name, value in values.items()}


def read_hash(redis: Redis, key: str) -> dict[str, str]:
    """A whole hash as text, empty when there is none."""
    return to_str_dict(redis.hgetall(key))
