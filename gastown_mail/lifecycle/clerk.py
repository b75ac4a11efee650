"""The clerk, the only reader of the inbox: each element becomes a request with its rq job, or a dead letter.

Accepting is one transaction: record, job and removal from `taken` happen together or not at all.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError, GastownError, InvalidRequest, Postponed
from gastown_mail.contracts.lifecycle import ID_PATTERN, OPERATOR, RequestStatus, content_id
from gastown_mail.contracts.request import decode_element
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.mail.requests import Inbox, IncomingRequest
from gastown_mail.plumbing.failpoints import failpoint
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.directory import Directory, NotAgreed
from gastown_mail.town.hosts import REPORT_EVERY
from gastown_mail.town.lease import Lease
from gastown_mail.town.town import Town

POLL_TIMEOUT = 1.0
"""Seconds that one blocking read waits; a clerk that is asked to stop ends within it."""

_RETRY_PAUSE = 0.5

_CLOCK_NOISE = 0.05
"""Seconds by which a clock can seem to be wrong because Redis took a moment to answer."""

log = logging.getLogger(__name__)


class Clerk:
    """Reads the inbox of one town. `town.redis` must allow blocking reads of `POLL_TIMEOUT` seconds."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.inbox = Inbox(town.redis, town.keys)
        self._lease = Lease(town.redis, town.keys.clerk, town.host)
        self._placed_at = self._clocks_read_at = -math.inf
        self._clocks: Mapping[str, float] = {}

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
        self._place_waiting()
        elements = self.inbox.unfinished() or self.inbox.take(wait)
        if elements:
            failpoint("clerk-taken")
            self._accept(elements, trusted=False, may_write=self._lease.check_held)
        else:
            self.inbox.note_empty()
        return len(elements)

    def accept(self, elements: Sequence[bytes], *, trusted: bool = False) -> None:
        """Accept elements that did not come through the inbox; a known one changes nothing.

        `trusted`: see `IncomingRequest`.
        """
        self._accept(elements, trusted=trusted, may_write=lambda: True)

    def _accept(self, elements: Sequence[bytes], *, trusted: bool, may_write: Callable[[], bool]) -> None:
        directory, requests = self.town.directory(), self.town.requests
        classified: dict[str, IncomingRequest] = {}
        for element in elements:
            incoming = replace(classify(element, directory.resolve), trusted=trusted)
            classified.setdefault(incoming.id, incoming)

        def unless_replaced(pipe: Any) -> Any:
            self._check(may_write)
            known = requests.are_known(list(classified))
            new = [each for each, is_known in zip(classified.values(), known, strict=True) if not is_known]
            new = self._with_clocks(self._verify_senders(new))
            agents = self._placed(new, directory)
            pipe.multi()
            self._write(pipe, new, elements, agents)
            return new

        new: Any = self.town.redis.transaction(
            unless_replaced, self.town.keys.clerk, value_from_callable=True
        )
        failpoint("clerk-booked")
        for incoming in new:
            agent, reason = incoming.agent or None, incoming.rejection or None
            log_event(log, "booked", request_id=incoming.id, agent=agent, detail=reason)

    def _place_waiting(self) -> None:
        """Route requests that waited for a host; refuse those whose agent no living host knows."""
        if time.monotonic() < self._placed_at + POLL_TIMEOUT:
            return
        self._placed_at, waiting = time.monotonic(), self.town.requests.unplaced()
        if not waiting:
            return
        directory, received = self.town.directory(), self.town.requests.unsettled()
        progress = [each for each in self.town.requests.progress_many(list(waiting)) if each]
        found = [
            replace(classify(each.element, directory.resolve), trusted=each.trusted) for each in progress
        ]
        for incoming in found:
            reason = incoming.rejection or incoming.unplaced
            if incoming.rejection or (reason and directory.have_agreed(received[incoming.id])):
                self.town.requests.settle(incoming.id, "", RequestStatus.REFUSED, reason, self.town.now())
        placed = self._with_clocks(self._verify_senders([each for each in found if each.agent]))

        def place(pipe: Any) -> None:
            self._check(self._lease.check_held)
            agents = self._placed(placed, directory)
            pipe.multi()
            for incoming in placed:
                self.town.requests.place(pipe, incoming, waiting[incoming.id])
                self.town.queues.enqueue_request(incoming.id, agents[incoming.agent], pipe)

        if placed:
            self.town.redis.transaction(place, self.town.keys.clerk)

    @staticmethod
    def _check(may_write: Callable[[], bool]) -> None:
        # a clerk that was paused for longer than its lease writes nothing: another one has accepted them
        if not may_write():
            raise Postponed("another clerk has taken over; this one waits until it ends")

    def _placed(self, requests: Sequence[IncomingRequest], directory: Directory) -> dict[str, Agent]:
        """The agents that these requests are for, each with the host that serves it now."""
        addresses = {incoming.agent for incoming in requests if incoming.agent and not incoming.rejection}
        return self.town.placed(addresses, {address: directory.resolve(address) for address in addresses})

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

    def _with_clocks(self, requests: Sequence[IncomingRequest]) -> list[IncomingRequest]:
        """Note by how much the clock of each asker's host is ahead, where one is."""
        if time.monotonic() > self._clocks_read_at + REPORT_EVERY:
            self._clocks, self._clocks_read_at = self.town.hosts.clocks(), time.monotonic()
        if not any(abs(ahead) > _CLOCK_NOISE for ahead in self._clocks.values()):
            return list(requests)
        askers = sorted({each.asker for each in requests if each.asker and each.asker != OPERATOR})
        places = zip(askers, self.town.agents.places(askers), strict=True)
        ahead = {asker: self._clocks.get(place.host, 0.0) for asker, place in places}
        by_redis = {each.id for each in requests if each.request and each.request.clock}
        return [
            replace(each, sender_ahead=0.0 if each.id in by_redis else ahead.get(each.asker, 0.0))
            for each in requests
        ]

    def _write(
        self, pipe: Pipeline, new: Sequence[IncomingRequest], elements: Sequence[bytes],
        agents: Mapping[str, Agent],
    ) -> None:  # fmt: skip
        first, now = self.town.requests.next_sequence(len(new)) if new else 0, self.town.now()
        for sequence, incoming in enumerate(new, start=first):
            self.town.requests.add(pipe, incoming, sequence, now)
            if incoming.agent and not incoming.rejection:
                self.town.queues.enqueue_request(incoming.id, agents[incoming.agent], pipe)
        for element in elements:
            pipe.lrem(self.town.keys.taken, 1, element)  # type: ignore[arg-type]


def classify(element: bytes, resolve: Callable[[str], Agent]) -> IncomingRequest:
    """The agent and the asker of an element, or why it is rejected or has to wait.

    `resolve` is that of a roster or of a directory.
    """
    try:
        request_id, request = decode_element(element)
    except InvalidRequest as error:
        return IncomingRequest(_best_effort_id(element), element, rejection=error.reason)
    try:
        asker = OPERATOR if request.sender == OPERATOR else resolve(request.sender).address
        agent = resolve(request.target)
    except NotAgreed as error:
        return IncomingRequest(request_id, element, request, unplaced=str(error))
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
