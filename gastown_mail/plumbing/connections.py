"""The one place that makes Redis connections, and that puts Redis errors into words for people.

A sender imports this module on its way to one `RPUSH`: it imports redis and the contracts, nothing else.

Redis' answers as text, and text as what Redis takes: redis-py's own types cover every setting it has."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gastown_mail.contracts.errors import RedisUnavailable, SettingsError

COMMAND_DEADLINE = 2.0
CONNECT_DEADLINE = 2.0
BLOCKING_MARGIN = 1.0

URL_FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://[user:password@]host[:port][/db] "
    "or unix:///absolute/path[?db=N]"
)
HINT = "(is a special character of the password not percent-encoded?)"
SCHEMES = frozenset({"redis", "rediss", "unix"})
ALLOWED_QUERY = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
    }
)
SAFE_POLICY = b"noeviction"


def connect(
    url: str,
    *,
    deadline: float = COMMAND_DEADLINE,
    blocking: float = 0.0,
    decode: bool = False,
) -> redis.Redis:
    """A client of the Redis at `url`; the socket is opened by the first command.

    `deadline`: seconds that a command may take. `blocking`: the longest time, in seconds, that a blocking
    read (BLMOVE, BLPOP, XREAD BLOCK) of this client asks the server to wait. Answers are bytes, or text with
    `decode`.
    No command is ever sent twice: a repeated RPUSH would be a second request.

    Raises SettingsError if `url` is of no form that works.
    """
    _check(url)
    timeout = deadline + blocking + BLOCKING_MARGIN if blocking else deadline
    return redis.Redis.from_url(
        url,
        decode_responses=decode,
        socket_timeout=timeout,
        socket_connect_timeout=min(deadline, CONNECT_DEADLINE),
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
        # RESP2 and no driver name: the handshake of a cold connection costs no round trip.
        protocol=2,
        driver_info=None,
    )


def redact(url: str) -> str:
    """`url` without its password, for logs and errors; rather too much is hidden than too little."""
    start = re.match(r"(\w*)://", url)
    scheme, rest = (start[0], url[start.end() :]) if start else ("", url)
    credentials, at, place = rest.rpartition("@")
    if at and ":" in credentials and not (scheme == "unix://" and rest.startswith("/")):
        rest = credentials.partition(":")[0] + ":***@" + place
    return scheme + re.sub(r"(?i)(password=).*", r"\1***", rest)


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turn what Redis throws inside the block into RedisUnavailable: what happened, where, what to do.

    Only refusals and silence are turned; an error in a command of ours (wrong type, bad syntax) stays itself.
    """
    try:
        yield
    except redis.RedisError as error:
        trouble = _failure_of(error)
        if trouble is None:
            raise
        raise RedisUnavailable(
            f"Redis at {redact(url)} {trouble.what}: {trouble.remedy} ({error})"
        ) from error


def durability_warnings(connection: redis.Redis) -> list[str]:
    """What in the settings of this Redis could lose a request, one plain sentence each; empty if nothing."""
    try:
        info = connection.info()
    except redis.ResponseError as error:
        return [
            f"The settings of this Redis could not be checked ({error}); make sure yourself that "
            "appendonly is yes and maxmemory-policy is noeviction."
        ]
    return _findings({key: _text(value) for key, value in info.items()})


def _findings(info: dict[str, str]) -> list[str]:
    policy = info.get("maxmemory_policy", "unknown")
    limit = info.get("maxmemory", "0")
    findings = []
    if info.get("aof_enabled") != "1":
        findings.append(
            "The append-only file is off: what was accepted is lost when Redis dies; set appendonly yes."
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        findings.append("The last write to the append-only file failed: look for a full disk in Redis's log.")
    if policy != "noeviction":
        findings.append(
            f"The eviction policy is {policy}: when memory is short, inboxes vanish silently; "
            "set maxmemory-policy noeviction."
        )
    if limit not in ("0", "unknown"):
        findings.append(f"The memory is limited to {limit} bytes: when it is full, requests are refused.")
    return findings


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _Failure(NamedTuple):
    what: str
    remedy: str


_CREDENTIALS = _Failure("refuses the credentials", "check user and password in redis_url")
_LOADING = _Failure("is still loading its data", "try again in a moment")
_UNREACHED = _Failure("is not reachable", "see that it runs and that redis_url is right, then try again")
_SILENT = _Failure("did not answer in time", "see that it is not paused or overloaded, then try again")
_FORBIDDEN = _Failure("does not permit that to this user", "give the user the rights for it (ACL SETUSER)")
_FULL = _Failure("is out of memory", "free memory or raise maxmemory, then try again")
_REPLICA = _Failure("is a read-only replica", "let redis_url name the primary")
_DISK = _Failure("cannot write to its disk", "free the disk it writes to, then try again")
_BUSY = _Failure("does not take commands now", "try again when it has recovered")

# The first match wins: some of redis-py's classes are subclasses of others.
_BY_CLASS: tuple[tuple[type[redis.RedisError], _Failure], ...] = (
    (redis.AuthenticationError, _CREDENTIALS),
    (redis.exceptions.AuthorizationError, _CREDENTIALS),
    (redis.exceptions.AuthenticationWrongNumberOfArgsError, _CREDENTIALS),
    (redis.BusyLoadingError, _LOADING),
    (redis.ConnectionError, _UNREACHED),
    (redis.TimeoutError, _SILENT),
    (redis.exceptions.NoPermissionError, _FORBIDDEN),
    (redis.OutOfMemoryError, _FULL),
    (redis.ReadOnlyError, _REPLICA),
    (redis.exceptions.ClusterDownError, _BUSY),
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
_CODE = re.compile(r"(?:^|caused error: )([A-Z]+) ")


def _failure_of(error: redis.RedisError) -> _Failure | None:
    for kind, trouble in _BY_CLASS:
        if isinstance(error, kind):
            return trouble
    code = _CODE.search(str(error))
    return _BY_CODE.get(code[1]) if code and isinstance(error, redis.ResponseError) else None


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        fault = _url_error(parts)
    except ValueError:
        # The text of urlsplit's error may quote a part of the password.
        fault = f"it cannot be read {HINT}"
    if fault:
        raise SettingsError(f"redis_url {redact(url)!r}: {fault}; what works is {URL_FORMS}")


def _url_error(parts: SplitResult) -> str | None:
    if parts.scheme not in SCHEMES:
        return f"unknown scheme {parts.scheme!r}" if parts.scheme else "it names no scheme"
    place = _path_error(parts) if parts.scheme == "unix" else _host_error(parts)
    return place or _query_error(parts.query)


def _path_error(parts: SplitResult) -> str | None:
    if parts.hostname:
        return "a unix socket needs three slashes and an absolute path"
    return None if len(parts.path) > 1 else "it names no socket"


def _host_error(parts: SplitResult) -> str | None:
    if not parts.hostname:
        return f"it names no host {HINT}" if parts.path.strip("/") else "it names no host"
    if parts.port == 0:
        return "the port must be 1 to 65535"
    return None if re.fullmatch(r"/?\d*", parts.path) else "the database after the host must be a number"


def _query_error(query: str) -> str | None:
    given = dict(parse_qsl(query, keep_blank_values=True))
    strange = sorted(set(given) - ALLOWED_QUERY)
    if strange:
        return f"unknown option {strange[0]!r} (known: {', '.join(sorted(ALLOWED_QUERY))})"
    return None if re.fullmatch(r"\d+", given.get("db", "0")) else "the database (db) must be a number"


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
