"""The clerk, the only reader of the inbox: each element becomes a request with its rq job, or a dead letter.

Accepting is one transaction: record, job and removal from `taken` happen together or not at all.
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
from gastown_mail.contracts.errors import AddressError, GastownError, InvalidRequest, Postponed
from gastown_mail.contracts.lifecycle import ID_PATTERN, OPERATOR, content_id
from gastown_mail.contracts.request import decode_element
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.mail.requests import Inbox, IncomingRequest
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.lease import Lease
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town

POLL_TIMEOUT = 1.0
"""Seconds that one blocking read waits; a clerk that is asked to stop ends within it."""

_RETRY_PAUSE = 0.5

log = logging.getLogger(__name__)


class Clerk:
    """Reads the inbox of one town. `town.redis` must allow blocking reads of `POLL_TIMEOUT` seconds."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.inbox = Inbox(town.redis, town.keys)
        self._lease = Lease(town.redis, town.keys.clerk, town.host)

    def serve(self, stop: threading.Event) -> None:
        """Accept elements until `stop` is set; errors are logged and waited out."""
        while not stop.is_set():
            try:
                self.serve_once(POLL_TIMEOUT)
            except (RedisError, GastownError) as error:
                log_event(log, "clerk_waits", level=logging.WARNING, detail=str(error))
                stop.wait(_RETRY_PAUSE)
        self._lease.release()

    def serve_once(self, wait: float) -> int:
        """Accept what is in the inbox, waiting up to `wait` seconds for it; return the number of elements."""
        if not self._lease.held and not self._lease.acquire():
            time.sleep(wait)
            return 0
        elements = self.inbox.unfinished() or self.inbox.take(wait)
        if elements:
            failpoint("clerk-taken")
            self._accept(elements, trusted=False, may_write=self._lease.check_held)
        return len(elements)

    def accept(self, elements: Sequence[bytes], *, trusted: bool = False) -> None:
        """Accept elements that did not come through the inbox; a known one changes nothing.

        `trusted`: see `IncomingRequest`.
        """
        self._accept(elements, trusted=trusted, may_write=lambda: True)

    def _accept(self, elements: Sequence[bytes], *, trusted: bool, may_write: Callable[[], bool]) -> None:
        roster, keys, requests = self.town.roster(), self.town.keys, self.town.requests
        classified: dict[str, IncomingRequest] = {}
        for element in elements:
            incoming = replace(classify(element, roster), trusted=trusted)
            classified.setdefault(incoming.id, incoming)

        def unless_replaced(pipe: Any) -> Any:
            # a clerk that was paused for longer than its lease writes nothing: another one has accepted them
            if not may_write():
                raise Postponed("another clerk has taken over; this one waits until it ends")
            known = requests.are_known(list(classified))
            new = [each for each, is_known in zip(classified.values(), known, strict=True) if not is_known]
            new = self._verify_senders(new)
            agents = self.town.placed({incoming.agent for incoming in new if not incoming.rejection})
            pipe.multi()
            self._write(pipe, new, elements, agents)
            return new

        new: Any = self.town.redis.transaction(unless_replaced, keys.clerk, value_from_callable=True)
        failpoint("clerk-booked")
        for incoming in new:
            agent, reason = incoming.agent or None, incoming.rejection or None
            log_event(log, "booked", request_id=incoming.id, agent=agent, detail=reason)

    def _verify_senders(self, requests: Sequence[IncomingRequest]) -> list[IncomingRequest]:
        """Mark the requests for another agent that carry the token of their asker's current session."""
        askers = {r.asker for r in requests if r.request and r.request.incarnation and r.asker != r.agent}
        tokens = self.town.agents.incarnations(sorted(askers)) if askers else {}
        return [
            replace(
                r, sender_verified=r.request is not None and r.request.incarnation == tokens.get(r.asker, "")
            )
            for r in requests
        ]

    def _write(
        self, pipe: Pipeline, new: Sequence[IncomingRequest], elements: Sequence[bytes],
        agents: Mapping[str, Agent],
    ) -> None:  # fmt: skip
        first, now = self.town.requests.next_sequence(len(new)) if new else 0, datetime.now(UTC)
        for sequence, incoming in enumerate(new, start=first):
            self.town.requests.add(pipe, incoming, sequence, now)
            if not incoming.rejection:
                self.town.queues.enqueue_request(incoming.id, agents[incoming.agent], pipe)
        for element in elements:
            pipe.lrem(self.town.keys.taken, 1, element)  # type: ignore[arg-type]


def classify(element: bytes, roster: Roster) -> IncomingRequest:
    """The agent and the asker of an element, or why it is rejected."""
    try:
        request_id, request = decode_element(element)
    except InvalidRequest as error:
        return IncomingRequest(_best_effort_id(element), element, rejection=error.reason)
    try:
        asker = OPERATOR if request.sender == OPERATOR else roster.resolve(request.sender).address
        agent = roster.resolve(request.target)
    except AddressError as error:
        return IncomingRequest(request_id, element, request, rejection=str(error))
    rejection = "" if is_authorized(asker, agent) else f"{asker} may not ask for {agent.address}"
    return IncomingRequest(request_id, element, request, agent.address, asker, rejection)


def _best_effort_id(element: bytes) -> str:
    """The id that the sender of an invalid element waits for, if it can be read."""
    try:
        given = json.loads(element)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        given = None
    return given if isinstance(given, str) and ID_PATTERN.match(given) else content_id(element)
