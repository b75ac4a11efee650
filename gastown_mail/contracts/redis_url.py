"""Checks and redacts Redis URLs. Standard library only: every sender imports it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

REDIS_URL_FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://[user:password@]host[:port][/db], "
    "unix:///absolute/path[?db=N] or sentinel://[user:password@]host[:port],host[:port],.../service"
)

_HINT = "(is a special character of the password not percent-encoded?)"
_OPTIONS = frozenset(
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


_SENTINEL_OPTIONS = frozenset({"tls", "sentinel_username", "sentinel_password"})
_SENTINEL_PORT = 26379
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class SentinelUrl:
    """A `sentinel://` URL: the Sentinels, the service whose primary they name, and how to connect to that."""

    hosts: list[tuple[str, int]]
    service: str
    credentials: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> "SentinelUrl":
        """Read a URL. Raises ValueError with what is wrong."""
        parts = urlsplit(url)
        credentials, at, hosts = parts.netloc.rpartition("@")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if error := _options_error(options, _OPTIONS | _SENTINEL_OPTIONS):
            raise ValueError(error)
        if options.get("tls", "true").lower() not in (*_TRUE, *_FALSE):
            raise ValueError("tls must be true or false")
        if not re.fullmatch(r"/[^/]+", parts.path):
            raise ValueError("after the hosts it must name the service that the Sentinels watch")
        return cls([_sentinel(host) for host in hosts.split(",")], parts.path[1:], credentials + at, options)

    @property
    def tls(self) -> bool:
        """Whether all connections are encrypted."""
        return self.options.get("tls", "false").lower() in _TRUE

    @property
    def node_url(self) -> str:
        """The URL of a server of this service, on any host."""
        given = {name: value for name, value in self.options.items() if name not in _SENTINEL_OPTIONS}
        return f"{'rediss' if self.tls else 'redis'}://{self.credentials}host?{urlencode(given)}"

    @property
    def sentinel_credentials(self) -> dict[str, str]:
        """The `username` and `password` that the Sentinels want, where they are given."""
        found = {name: self.options.get(f"sentinel_{name}") for name in ("username", "password")}
        return {name: value for name, value in found.items() if value}


def _sentinel(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port == 0:
        raise ValueError(f"{text!r} is not a Sentinel's host[:port]")
    return parts.hostname, parts.port or _SENTINEL_PORT


def is_encrypted(url: str) -> bool:
    """Whether connections to this Redis use TLS."""
    return url.startswith("rediss://") or (url.startswith("sentinel://") and SentinelUrl.parse(url).tls)


def redis_url_error(url: str) -> str | None:
    """What is wrong with a Redis URL, None if nothing is."""
    if re.search(r"\s", url):
        return f"it contains white space {_HINT}"
    try:
        parts = urlsplit(url)
        if url.startswith("unix://"):
            return _path_error(parts) or _query_error(parts.query)
        if url.startswith(("redis://", "rediss://")):
            return _host_error(parts) or _query_error(parts.query)
        if url.startswith("sentinel://"):
            return _sentinel_error(url)
    except ValueError:
        # the text of urlsplit's error may quote a part of the password
        return f"it cannot be read {_HINT}"
    if parts.scheme in ("redis", "rediss", "unix", "sentinel"):
        return f"it does not begin with {parts.scheme}://"
    return f"unknown scheme {parts.scheme!r}" if parts.scheme else "it has no scheme"


def redact(url: str) -> str:
    """`url` without its password, for logs and errors; when in doubt, it hides more."""
    start = re.match(r"(\w*)://", url)
    scheme, rest = (start[0], url[start.end() :]) if start else ("", url)
    credentials, at, place = rest.rpartition("@")
    if at and ":" in credentials and not (scheme == "unix://" and rest.startswith("/")):
        rest = credentials.partition(":")[0] + ":***@" + place
    return scheme + re.sub(r"(?i)(password=).*", r"\1***", rest)


def _path_error(parts: SplitResult) -> str | None:
    if parts.hostname:
        return "a unix socket needs three slashes and an absolute path"
    return None if len(parts.path) > 1 else "it has no socket path"


def _host_error(parts: SplitResult) -> str | None:
    if not parts.hostname:
        return f"it has no host {_HINT}" if parts.path.strip("/") else "it has no host"
    if parts.port == 0:
        return "the port must be 1 to 65535"
    is_cut = "@" in f"{parts.path}?{parts.query}#{parts.fragment}"
    if re.fullmatch(r"/?\d*", parts.path) and not is_cut:
        return None
    return "the database after the host must be a number" + (f" {_HINT}" if is_cut else "")


def _sentinel_error(url: str) -> str | None:
    try:
        SentinelUrl.parse(url)
    except ValueError as error:
        return str(error)
    return None


def _query_error(query: str) -> str | None:
    return _options_error(dict(parse_qsl(query, keep_blank_values=True)), _OPTIONS)


def _options_error(given: Mapping[str, str], known: frozenset[str]) -> str | None:
    if unknown := sorted(set(given) - known):
        return f"unknown option {unknown[0]!r} (known: {', '.join(sorted(known))})"
    return None if re.fullmatch(r"\d+", given.get("db", "0")) else "the database (db) must be a number"
