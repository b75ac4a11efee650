"""Sending a request: one RPUSH of JSON. Imports little, because agents wait for it."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, RequestNotAccepted, SettingsError
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import (
    FINAL_STATUSES,
    MAX_ELEMENT_BYTES,
    OPERATOR,
    check_handoff,
    check_id,
    check_reason,
    new_request_id,
    parse_action,
)
from gastown_mail.plumbing.connections import (
    REPLICA_DEADLINE_MS,
    connect,
    redis_errors,
    to_str_dict,
)

SEND_DEADLINE = 6.0
"""Seconds in which a request must be accepted, all attempts together."""

_RETRY_PAUSE = 0.2
_MIN_POLL, _MAX_POLL = 0.002, 0.1

ACCEPTED = "accepted"
"""The status of a request that is in the inbox."""

LOST = "lost"
"""The status of a request that was accepted and that Redis has lost."""

_LOST_RECORD = {
    "status": LOST,
    "detail": "Redis was emptied or came back older, and no longer has the request; send it again",
}


@dataclass(frozen=True)
class Receipt:
    """Proof that a request was accepted, and the way to its outcome.

    `epoch`: which Redis has accepted it, in the words of the clerk; another one may have lost it.
    """

    id: str
    redis_url: str
    town: str
    epoch: str = ""

    def status(self) -> str:
        """`accepted`, `received`, `carrying`, a final status, or `lost`. Raises GastownError."""
        return self._record().get("status", ACCEPTED)

    def detail(self) -> str:
        """The daemon's text about the request, for people. Raises GastownError if Redis refuses it."""
        return self._record().get("detail", "")

    def wait(self, timeout: float) -> str:
        """Wait at most `timeout` seconds for a final status or `lost`; return the last status read.

        Raises GastownError if Redis refuses it, RedisUnavailable if Redis does not answer at the end.
        """
        until, pause = time.monotonic() + timeout, _MIN_POLL
        while True:
            try:
                status = self.status()
                if status in (*FINAL_STATUSES, LOST) or time.monotonic() >= until:
                    return status
            except RedisUnavailable as error:
                # it may be restarting, or failing over
                if not _is_transient(error) or time.monotonic() >= until:
                    raise
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(pause * 1.5, _MAX_POLL)

    def _record(self) -> Mapping[str, str]:
        keys = Keys(self.town)
        with redis_errors(self.redis_url):
            with _client(self.redis_url).pipeline(transaction=False) as pipe:
                # in this order: all that was accepted before `read` has a record by then
                pipe.hgetall(keys.epoch)
                pipe.hgetall(keys.request(self.id))
                server, record = pipe.execute(raise_on_error=False)
            if isinstance(record, Exception):
                raise record
        known = _readable(server)
        is_lost = not record and known.get("read") and known.get("epoch", "") != self.epoch
        return _LOST_RECORD if is_lost else to_str_dict(record)


def send_lifecycle(
    action: str,
    *,
    agent: str | None = None,
    to: str | None = None,
    reason: str = "",
    handoff: str = "",
    redis_url: str | None = None,
    town: str | None = None,
    request_id: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Receipt:
    """Ask the daemon to `cycle`, `restart` or `shutdown` a session.

    `agent` is the sender, `to` the agent whose session is meant (by default the sender's own), `town` the
    town's name. Inside a session the defaults come from its environment; outside, the sender is `operator`.
    `request_id` is a new one by default; a second request with the same id changes nothing. Raises
    SettingsError if an argument is wrong or missing; then nothing was sent. Raises RequestNotAccepted if
    Redis did not confirm the request; then it is safe to send it again.
    """
    return send_at(
        datetime.now(UTC), "", action, agent=agent, to=to, reason=reason, handoff=handoff,
        redis_url=redis_url, town=town, request_id=request_id, environ=environ,
    )  # fmt: skip


def send_at(
    now: datetime, clock: str, action: str, *, agent: str | None, to: str | None, reason: str, handoff: str,
    redis_url: str | None, town: str | None, request_id: str | None,
    environ: Mapping[str, str] = os.environ,
) -> Receipt:  # fmt: skip
    """The same with the time at which it is asked for; `clock` is `redis` if that is the time of Redis."""
    url = redis_url or _from_env(environ, "GASTOWN_REDIS_URL", "redis_url")
    name = town or _from_env(environ, "GASTOWN_TOWN_NAME", "town")
    asker = agent or default_sender(environ)
    token = environ.get("GASTOWN_INCARNATION", "") if asker == environ.get("GASTOWN_AGENT") else ""
    chosen_id = new_request_id() if request_id is None else request_id
    element = build_element(
        chosen_id,
        action,
        asker,
        to=to,
        token=token,
        reason=reason,
        handoff=handoff,
        now=now,
        clock=clock,
    )
    epoch = push(url, Keys(name), element, int(environ.get("GASTOWN_MIN_REPLICAS") or 0))
    return Receipt(chosen_id, url, name, epoch)


def default_sender(environ: Mapping[str, str]) -> str:
    """The session's agent, or `operator` outside a session. Raises SettingsError if a session has none."""
    if environ.get("GASTOWN_INCARNATION"):
        return _from_env(environ, "GASTOWN_AGENT", "agent")
    return environ.get("GASTOWN_AGENT") or OPERATOR


def build_element(
    request_id: str, action: str, asker: str, *, to: str | None, token: str, reason: str, handoff: str,
    now: datetime, clock: str = "",
) -> bytes:  # fmt: skip
    """The JSON for the inbox. Raises SettingsError."""
    try:
        chosen = parse_action(action)
        check_id(request_id)
        check_reason(reason)
        check_handoff(handoff, chosen)
        if asker == OPERATOR and to in (None, "", OPERATOR):
            raise ValueError("the operator has no session; name the agent that is meant (to, or --to)")
        optional = {"id": request_id, "to": to, "incarnation": token, "reason": reason, "handoff": handoff}
        optional["clock"] = clock
        request = {"from": asker, "action": chosen.value, "timestamp": format_time(now)}
        request.update({key: value for key, value in optional.items() if value})
        element = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise SettingsError(f"the request was not sent: {error}") from None
    if len(element) > MAX_ELEMENT_BYTES:
        raise SettingsError(
            f"the request was not sent: it has {len(element)} bytes; the limit is {MAX_ELEMENT_BYTES}"
        )
    return element


def push(url: str, keys: Keys, element: bytes, min_replicas: int = 0) -> str:
    """RPUSH, repeated if the answer is lost: the id keeps a second copy from being a second request.

    With `min_replicas`, so many replicas must have it. Returns the epoch of the Redis that has it.
    """
    until = time.monotonic() + SEND_DEADLINE
    while True:
        try:
            with redis_errors(url):
                return _push_once(_client(url), keys, element, min_replicas)
        except (SettingsError, RequestNotAccepted):
            raise
        except GastownError as error:
            if not _is_transient(error) or time.monotonic() + _RETRY_PAUSE > until:
                raise RequestNotAccepted(f"the request was not accepted: {error}") from error
            time.sleep(_RETRY_PAUSE)


def _push_once(redis: Redis, keys: Keys, element: bytes, min_replicas: int) -> str:
    with redis.pipeline(transaction=False) as pipe:
        pipe.rpush(keys.inbox, element)
        pipe.hgetall(keys.epoch)
        if min_replicas:
            pipe.wait(min_replicas, REPLICA_DEADLINE_MS)
        pushed, server, *replicas = pipe.execute(raise_on_error=False)
    for answer in (pushed, *replicas):
        if isinstance(answer, Exception):
            raise answer
    if replicas and replicas[0] < min_replicas:
        raise RequestNotAccepted(
            f"the request is not safe yet: fewer than {min_replicas} replicas of Redis have it; it may be "
            "carried out all the same, and sending it again with its id is safe"
        )
    return _readable(server).get("epoch", "")


def _readable(answer: Any) -> dict[str, str]:
    """The hash that Redis has answered with; empty if this user may not read it."""
    return {} if isinstance(answer, Exception) else to_str_dict(answer)


def _is_transient(error: GastownError) -> bool:
    """Whether Redis gave no answer, which may change, rather than a refusal."""
    cause = error.__cause__
    return isinstance(cause, RedisConnectionError | RedisTimeoutError) and not isinstance(
        cause, AuthenticationError
    )


@cache
def _client(url: str) -> Redis:
    """One client for each URL in this process: a connection costs more than a request."""
    return connect(url)


def _from_env(environ: Mapping[str, str], variable: str, argument: str) -> str:
    if value := environ.get(variable):
        return value
    raise SettingsError(
        f"the request was not sent: {variable} is not set, and {argument} was not given;"
        f" run this inside an agent's session, or give {argument}"
    )
