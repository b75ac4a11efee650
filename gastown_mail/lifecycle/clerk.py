"""The clerk, the only reader of the inbox: an element becomes a request with its rq job, or a dead letter.

Booking is one transaction: the record, the job and the removal from `taken` happen together or not at all.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError, GastownError, InvalidRequest
from gastown_mail.contracts.lifecycle import ID_PATTERN, OPERATOR, content_id
from gastown_mail.contracts.request import LifecycleRequest, decode_element
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.mail.requests import Inbox, IncomingRequest
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.lease import Lease
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

POLL_TIMEOUT = 1.0
"""Seconds that one blocking read waits; a stopping clerk ends within it."""

RETRY_PAUSE = 0.5

log = logging.getLogger(__name__)


class Clerk:
    """Reads the inbox of one town. `town.redis` must allow blocking reads of `WAIT` seconds."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.inbox = Inbox(town.redis, town.keys)
        self._lease = Lease(town.redis, town.keys.clerk, town.host)

    def serve(self, stop: threading.Event) -> None:
        """Book elements until `stop` is set; trouble is logged and waited out, never the end."""
        while not stop.is_set():
            try:
                self.serve_once(POLL_TIMEOUT)
            except (RedisError, GastownError) as error:
                log_event(log, "clerk_waits", level=logging.WARNING, detail=str(error))
                stop.wait(RETRY_PAUSE)
        self._lease.release()

    def serve_once(self, wait: float) -> int:
        """Book what is there, waiting at most `wait` seconds for it; return how many elements that were."""
        if not self._lease.held and not self._lease.acquire():
            time.sleep(wait)
            return 0
        elements = self.inbox.unfinished() or self.inbox.take(wait)
        if elements:
            failpoint("clerk-taken")
            self._accept(elements, trusted=False, may_write=self._lease.check_held)
        return len(elements)

    def accept(self, elements: Sequence[bytes], *, trusted: bool = False) -> None:
        """Book elements past the inbox; one booked again changes nothing (`trusted`: see `Booking`)."""
        self._accept(elements, trusted=trusted, may_write=lambda: True)

    def _accept(self, elements: Sequence[bytes], *, trusted: bool, may_write: Callable[[], bool]) -> None:
        roster = self.town.roster()
        classified: dict[str, IncomingRequest] = {}
        for element in elements:
            incoming = replace(classify(element, roster), trusted=trusted)
            classified.setdefault(incoming.id, incoming)

        def unless_replaced(pipe: Any) -> Any:
            # a clerk that was stopped for longer than its lease writes nothing: its successor has booked
            if not may_write():
                raise GastownError("another clerk has taken over; this one waits for its turn")
            new = self._verify_senders(self._new_only(classified))
            pipe.multi()
            self._write(pipe, new, elements, roster)
            return new

        keys = self.town.keys
        new: Any = self.town.redis.transaction(unless_replaced, keys.clerk, value_from_callable=True)
        failpoint("clerk-booked")
        for incoming in new:
            whose, why = incoming.agent or None, incoming.rejection or None
            log_event(log, "booked", request_id=incoming.id, agent=whose, detail=why)

    def _new_only(self, classified: Mapping[str, IncomingRequest]) -> list[IncomingRequest]:
        known = self.town.requests.are_known(list(classified))
        return [
            incoming for incoming, is_known in zip(classified.values(), known, strict=True) if not is_known
        ]

    def _verify_senders(self, requests: Sequence[IncomingRequest]) -> list[IncomingRequest]:
        """Note which of them carry the token of the session in which their asker lives now."""
        askers = sorted(
            {b.asker for b in requests if b.request and b.request.incarnation and b.asker != b.agent}
        )
        records = self.town.agents.read_all(askers) if askers else []
        tokens = {asker: record.incarnation for asker, record in zip(askers, records, strict=True)}
        return [
            replace(
                b, sender_verified=b.request is not None and b.request.incarnation == tokens.get(b.asker, "")
            )
            for b in requests
        ]

    def _write(
        self, pipe: Pipeline, new: Sequence[IncomingRequest], elements: Sequence[bytes], roster: Roster
    ) -> None:
        first, now = self.town.requests.next_sequence(len(new)) if new else 0, datetime.now(UTC)
        for place, incoming in enumerate(new, start=first):
            self.town.requests.add(pipe, incoming, place, now)
            if not incoming.rejection:
                self.town.queues.enqueue_request(incoming.id, roster.agents[incoming.agent], pipe)
        for element in elements:
            pipe.lrem(self.town.keys.taken, 1, element)  # type: ignore[arg-type]


def classify(element: bytes, roster: Roster) -> IncomingRequest:
    """Whose request an element is, or why it is refused."""
    try:
        request_id, request = decode_element(element)
    except InvalidRequest as error:
        return IncomingRequest(_best_effort_id(element), element, rejection=error.reason)
    try:
        agent, asker = resolve_parties(request, roster)
    except AddressError as error:
        return IncomingRequest(request_id, element, request, rejection=str(error))
    refusal = "" if is_authorized(asker, agent) else f"{asker} may not ask for {agent.address}"
    return IncomingRequest(request_id, element, request, agent.address, asker, refusal)


def resolve_parties(request: LifecycleRequest, roster: Roster) -> tuple[Agent, str]:
    """Whose session is meant, and who asks (canonical, or `operator`); raises AddressError."""
    asker = OPERATOR if request.sender == OPERATOR else roster.resolve(request.sender).address
    return roster.resolve(request.target), asker


def _best_effort_id(element: bytes) -> str:
    """The id that its sender waits for, if it can be read at all."""
    try:
        given = json.loads(element)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        given = None
    return given if isinstance(given, str) and ID_PATTERN.match(given) else content_id(element)
