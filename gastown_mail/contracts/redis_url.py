"""Checks and redacts Redis URLs. Standard library only: every sender imports it."""

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

REDIS_URL_FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://[user:password@]host[:port][/db] "
    "or unix:///absolute/path[?db=N]"
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
    except ValueError:
        # the text of urlsplit's error may quote a part of the password
        return f"it cannot be read {_HINT}"
    if parts.scheme in ("redis", "rediss", "unix"):
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
    return None if re.fullmatch(r"/?\d*", parts.path) else "the database after the host must be a number"


def _query_error(query: str) -> str | None:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(given) - _OPTIONS):
        return f"unknown option {unknown[0]!r} (known: {', '.join(sorted(_OPTIONS))})"
    return None if re.fullmatch(r"\d+", given.get("db", "0")) else "the database (db) must be a number"
