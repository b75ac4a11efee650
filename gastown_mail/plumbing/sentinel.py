"""The primary of a Redis with failover: who it is, the Sentinels say at each new connection."""

from typing import Any

from redis import Redis
from redis.connection import parse_url
from redis.sentinel import Sentinel

from gastown_mail.contracts.redis_url import SentinelUrl


def primary_of(url: str, **options: Any) -> Redis:
    """A client of the primary that `url` names; `options` as for `Redis`.

    The Sentinels get `sentinel_username` and `sentinel_password` of the URL, and its TLS settings.
    """
    parts = SentinelUrl.parse(url)
    given: dict[str, Any] = dict(parse_url(parts.node_url))  # type: ignore[no-untyped-call]
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    tls = {name: value for name, value in given.items() if name.startswith("ssl_")}
    tls |= {"ssl": True} if parts.tls else {}
    options = {**given, **options, **tls}
    timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
    sentinels = {**timeouts, **tls, **parts.sentinel_credentials}
    sentinel = Sentinel(parts.hosts, sentinel_kwargs=sentinels, **options)  # type: ignore[no-untyped-call]
    client: Redis = sentinel.master_for(parts.service)  # type: ignore[no-untyped-call]
    return client
