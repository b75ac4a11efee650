"""Redis connections, readable errors, and conversions between text and redis-py's types.

Every sender imports this module for one `RPUSH`, so it imports only redis and the contracts.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, SettingsError
from gastown_mail.contracts.redis_url import REDIS_URL_FORMS, is_encrypted, redact, redis_url_error

_COMMAND_DEADLINE = 2.0
_CONNECT_DEADLINE = 2.0
_BLOCKING_MARGIN = 1.0

REPLICA_DEADLINE_MS = 1000
"""How long replicas may take to confirm what was written; shorter than a command may take."""


def connect(url: str, *, deadline: float = _COMMAND_DEADLINE, blocking: float = 0.0) -> Redis:
    """A client of the Redis at `url`; its first command opens the connection.

    `deadline`: seconds that a command may take. `blocking`: the longest time, in seconds, that a blocking
    read (BLMOVE, BLPOP, XREAD BLOCK) of this client asks the server to wait. Answers are bytes.
    No command is sent twice: a repeated RPUSH would be a second request.

    Raises SettingsError if the URL cannot be used.
    """
    if error := redis_url_error(url):
        raise SettingsError(f"redis_url {redact(url)!r}: {error}; expected {REDIS_URL_FORMS}")
    options: dict[str, Any] = {
        "socket_timeout": deadline + blocking + _BLOCKING_MARGIN if blocking else deadline,
        "socket_connect_timeout": min(deadline, _CONNECT_DEADLINE),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "protocol": 2,
    }
    if not is_encrypted(url):
        # RESP2 and no driver name: a new connection then needs no round trip for its handshake. With TLS it
        # needs one, or redis-py takes the unread tickets of TLS 1.3 for an answer that nobody asked for.
        options["driver_info"] = None
    if url.startswith("sentinel://"):
        from gastown_mail.plumbing.sentinel import primary_of

        return primary_of(url, **options)
    return Redis.from_url(url, **options)


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Say what happened, where, and what to do when Redis fails inside the block.

    A refusal or no answer becomes RedisUnavailable, an error in a command GastownError.
    """
    try:
        yield
    except redis.RedisError as error:
        failure = _failure_of(error)
        if failure is _SILENT and is_encrypted(url):
            failure = _SILENT_TLS
        if failure:
            raise RedisUnavailable(
                f"Redis at {redact(url)} {failure.what}: {failure.remedy} ({error})"
            ) from error
        if not isinstance(error, redis.ResponseError):
            raise
        failure = _WRONG_TYPE if "WRONGTYPE" in str(error) else _UNSUPPORTED
        raise GastownError(f"Redis at {redact(url)} {failure.what} ({error}); {failure.remedy}") from error


def durability_warnings(connection: Redis) -> list[str]:
    """What in the settings of this Redis could lose a request, one sentence each; empty if nothing."""
    try:
        info = {key: to_str(value) for key, value in connection.info().items()}
    except redis.ResponseError as error:
        return [
            f"The settings of this Redis could not be checked ({error}); check yourself that "
            "appendonly is yes and maxmemory-policy is noeviction."
        ]
    warnings = []
    policy = info.get("maxmemory_policy", "unknown")
    limit, used = (int(info.get(name) or 0) for name in ("maxmemory", "used_memory"))
    if info.get("aof_enabled") != "1":
        warnings.append(
            "The append-only file is off: accepted requests are lost when Redis dies; set appendonly yes."
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        warnings.append("The last write to the append-only file failed: check Redis's log for a full disk.")
    if policy != "noeviction":
        warnings.append(
            f"The eviction policy is {policy}: when memory is short, inboxes vanish silently; "
            "set maxmemory-policy noeviction."
        )
    if limit and used > limit * _NEARLY_FULL:
        warnings.append(
            f"{used} of {limit} bytes of memory are used: when it is full, requests are refused; "
            "raise maxmemory, or free some."
        )
    return warnings


def refuse_cluster(connection: Redis, url: str) -> None:
    """Raise SettingsError for a Redis Cluster: rq's keys lie in many of its slots, and jobs would be lost."""
    try:
        info: Any = connection.info("cluster")
    except redis.ResponseError:
        return
    if int(info.get("cluster_enabled", 0)):
        raise SettingsError(f"Redis at {redact(url)} {_CLUSTER.what}: {_CLUSTER.remedy}")


_NEARLY_FULL = 0.8


class _Failure(NamedTuple):
    what: str
    remedy: str


_CREDENTIALS = _Failure(
    "refuses the credentials",
    "check user and password in redis_url, where a password has @ : / # ? and % percent-encoded (@ is %40)",
)
_LOADING = _Failure("is still loading its data", "try again in a moment")
_UNREACHED = _Failure("is not reachable", "check that it runs and that redis_url is right, then try again")
_CERTIFICATE = _Failure(
    "has a certificate that this machine does not trust",
    "name its authority in redis_url (?ssl_ca_certs=/path/ca.pem) and the host as the certificate does",
)
_NO_TLS = _Failure("does not speak TLS there", "check the port; without TLS the URL begins with redis://")
_NO_PRIMARY = _Failure(
    "has no primary at the moment",
    "if that lasts, check that its Sentinels run, and that redis_url names them and their service",
)
_DATABASE = _Failure("does not have that database", "choose a lower number in redis_url (/0 to /15)")
_PROTECTED = _Failure(
    "is in protected mode and takes no connections from other machines",
    "give it a password (requirepass, or ACL users) and put it into redis_url",
)
_CROWDED = _Failure("has as many clients as it allows", "raise its maxclients, or end some of them")
_ENDS_AT_ONCE = _Failure(
    "ends connections before their first command",
    "raise its maxclients if it has as many clients as it allows; protected mode and proxies do that too",
)
_SILENT = _Failure("did not answer in time", "check that it is not paused or overloaded, then try again")
_SILENT_TLS = _Failure(
    "did not answer in time",
    "check that this port speaks TLS (if not, the URL begins with redis://), then try again",
)
_CLUSTER = _Failure(
    "is a Redis Cluster, and rq does not work on one",
    "set redis_url to a single Redis, or to one with Sentinel (sentinel://)",
)
_FORBIDDEN = _Failure("does not permit this user to do that", "give the user that right (ACL SETUSER)")
_FULL = _Failure("is out of memory", "free memory or raise maxmemory, then try again")
_REPLICA = _Failure("is a read-only replica", "set redis_url to the primary")
_DISK = _Failure("cannot write to its disk", "free space on that disk, then try again")
_BUSY = _Failure("accepts no commands now", "try again when it has recovered")
_WRONG_TYPE = _Failure(
    "holds another type of value under a key of this town",
    "find it with redis-cli TYPE and rename it",
)
_UNSUPPORTED = _Failure("refuses a command", "check with gastown-mail doctor that its version is supported")

# The first match wins: some of redis-py's classes are subclasses of others.
_BY_CLASS: tuple[tuple[type[redis.RedisError], _Failure], ...] = (
    (redis.AuthenticationError, _CREDENTIALS),
    (redis.exceptions.AuthorizationError, _CREDENTIALS),
    (redis.exceptions.AuthenticationWrongNumberOfArgsError, _CREDENTIALS),
    (redis.BusyLoadingError, _LOADING),
    (redis.sentinel.MasterNotFoundError, _NO_PRIMARY),
    (redis.ConnectionError, _UNREACHED),
    (redis.TimeoutError, _SILENT),
    (redis.exceptions.NoPermissionError, _FORBIDDEN),
    (redis.OutOfMemoryError, _FULL),
    (redis.ReadOnlyError, _REPLICA),
    (redis.exceptions.ClusterDownError, _CLUSTER),
    (redis.exceptions.MovedError, _CLUSTER),
)
_BY_CODE = {
    "MISCONF": _DISK,
    "OOM": _FULL,
    "NOPERM": _FORBIDDEN,
    "READONLY": _REPLICA,
    "LOADING": _LOADING,
    "NOAUTH": _CREDENTIALS,
    "WRONGPASS": _CREDENTIALS,
    "BUSY": _BUSY,
    "NOREPLICAS": _BUSY,
    "MASTERDOWN": _BUSY,
}
# redis-py puts "Command # 1 (...) of pipeline caused error: " before the code.
_BY_WORDS = {
    "CERTIFICATE_VERIFY_FAILED": _CERTIFICATE,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "DB index is out of range": _DATABASE,
    "invalid DB index": _DATABASE,
    "running in protected mode": _PROTECTED,
    "max number of clients reached": _CROWDED,
    # redis-py's words for an answer that came before the question
    "Connection not ready": _ENDS_AT_ONCE,
}
_CODE = re.compile(r"(?:^|caused error: )([A-Z]+) ")


def _failure_of(error: redis.RedisError) -> _Failure | None:
    for words, failure in _BY_WORDS.items():
        if words in str(error):
            return failure
    for kind, failure in _BY_CLASS:
        if isinstance(error, kind):
            return failure
    code = _CODE.search(str(error))
    return _BY_CODE.get(code[1]) if code and isinstance(error, redis.ResponseError) else None


def to_str(answer: Any) -> str:
    """An answer as text, "" for none; bytes that are not UTF-8 are replaced by a mark."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer or "")


def to_strs(answers: Iterable[Any]) -> list[str]:
    """Answers as text."""
    return [to_str(answer) for answer in answers]


def to_str_dict(answer: Mapping[Any, Any]) -> dict[str, str]:
    """The fields of a hash as text."""
    return {to_str(name): to_str(value) for name, value in answer.items()}


def to_fields(values: Mapping[str, object]) -> dict[Any, Any]:
    """The fields for HSET and XADD, every value as text. redis-py's own type for them is too wide."""
    return {name: value if isinstance(value, bytes) else str(value) for name, value in values.items()}


def read_hash(redis: Redis, key: str) -> dict[str, str]:
    """A whole hash as text, empty if there is none."""
    return to_str_dict(redis.hgetall(key))


def read_hashes(redis: Redis, keys: Iterable[str]) -> list[dict[str, str]]:
    """These hashes as text, in one round trip; empty where there is none."""
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        return [to_str_dict(answer) for answer in pipe.execute()]


def confirm_replicas(connection: Redis, key: str, least: int) -> int:
    """Wait until at least `least` replicas have all that was written before; return how many have it.

    Counts one up in the hash `key`: WAIT speaks of what its own connection wrote last.
    """
    with connection.pipeline(transaction=False) as pipe:
        pipe.hincrby(key, "number", 1)
        pipe.wait(least, REPLICA_DEADLINE_MS)
        return int(pipe.execute()[1])
