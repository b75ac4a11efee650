"""The primary of a Redis with failover: who it is, the Sentinels say at each new connection."""

from typing import Any

from redis import Redis
from redis.connection import parse_url
from redis.sentinel import MasterNotFoundError, Sentinel

from gastown_mail.contracts.redis_url import SentinelUrl


class _Sentinels(Sentinel):
    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:  # its text describes every connection
            raise MasterNotFoundError(f"no Sentinel names a primary of {service_name!r}") from None


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
    sentinel = _Sentinels(parts.hosts, sentinel_kwargs=sentinels, **options)  # type: ignore[no-untyped-call]
    client: Redis = sentinel.master_for(parts.service)  # type: ignore[no-untyped-call]
    return client
