"""The clerk, the only reader of the inbox: each element becomes a request with its rq job, or a dead letter.

Accepting is one transaction: records, jobs and removal from `taken` happen together or not at all.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError, GastownError, InvalidRequest, Postponed
from gastown_mail.contracts.lifecycle import (
    ID_PATTERN,
    MAX_ELEMENT_BYTES,
    OPERATOR,
    LifecycleAction,
    RequestStatus,
    content_id,
)
from gastown_mail.contracts.request import decode_element
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.mail.inbox import CutElement, Inbox
from gastown_mail.mail.requests import MAX_OPEN, IncomingRequest
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
        if not self._lease.held:
            if not self._lease.acquire():
                time.sleep(wait)
                return 0
            self._note_accepted(self.town.redis, self.town.now())
        self._place_waiting()
        if not self.inbox.take(wait):
            self.inbox.note_empty()
            return 0
        failpoint("clerk-taken")
        return self._accept(None, trusted=False)

    def accept(self, elements: Sequence[bytes], *, trusted: bool = False) -> None:
        """Accept elements that did not come through the inbox; a known one changes nothing.

        `trusted`: see `IncomingRequest`.
        """
        self._accept(elements, trusted=trusted)

    def _accept(self, given: Sequence[bytes] | None, *, trusted: bool) -> int:
        """Record these elements, or the oldest in `taken`, in one transaction; return their number."""
        directory = self.town.directory()

        def unless_replaced(pipe: Any) -> Any:
            if given is None:
                self._check_lease()
            # read in the transaction that removes them by their position
            elements = self.inbox.unfinished(pipe) if given is None else given
            new = self._unknown(elements, directory.resolve, trusted=trusted)
            agents = self._placed(new, directory)
            now = self.town.now()
            pipe.multi()
            self._write(pipe, new, agents, now)
            if given is None:
                pipe.ltrim(self.town.keys.taken, len(elements), -1)
                self._note_accepted(pipe, now)
            return new, agents, len(elements)

        keys = self.town.keys
        accepted: Any = self.town.redis.transaction(
            unless_replaced, keys.clerk, keys.taken, value_from_callable=True
        )
        new, agents, count = accepted
        failpoint("clerk-booked")
        for incoming in new:
            to, reason = incoming.agent or None, incoming.rejection or None
            log_event(log, "booked", request_id=incoming.id, agent=to, detail=reason)
        for address, agent in agents.items():
            self._bound_open(address, agent.host)
        return int(count)

    def _note_accepted(self, redis: Redis, now: datetime) -> None:
        redis.set(self.town.keys.accepted, now.timestamp())

    def _unknown(
        self, elements: Sequence[bytes], resolve: Callable[[str], Agent], *, trusted: bool
    ) -> list[IncomingRequest]:
        """What these elements ask for, without those that have a record already."""
        classified: dict[str, IncomingRequest] = {}
        for element in elements:
            incoming = replace(classify(element, resolve), trusted=trusted)
            classified.setdefault(incoming.id, incoming)
        known = self.town.requests.are_known(list(classified))
        new = [each for each, is_known in zip(classified.values(), known, strict=True) if not is_known]
        return self._with_clocks(self._verify_senders(new))

    def _bound_open(self, address: str, host: str) -> None:
        """Supersede the oldest open requests of an agent that has more than MAX_OPEN.

        A shutdown is superseded only by a later shutdown, and none that a worker has begun.
        """
        requests = self.town.requests
        ids = requests.pending(address)
        if len(ids) <= MAX_OPEN:
            return
        records = zip(ids, requests.records(ids), strict=True)
        shutdowns = [i for i, record in records if record.get("action") == LifecycleAction.SHUTDOWN]
        last_shutdown = shutdowns[-1] if shutdowns else ""
        later = {i: last_shutdown if i in shutdowns else ids[-1] for i in ids[:-MAX_OPEN]}
        ends = {
            i: (RequestStatus.SUPERSEDED, f"more than {MAX_OPEN} requests are open; request {by} came later")
            for i, by in later.items()
            if by != i
        }
        settled = requests.settle_all(address, ends, self.town.now(), unless=(RequestStatus.CARRYING,))
        self.town.queues.drop_requests(settled, host)

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
            self._check_lease()
            agents = self._placed(placed, directory)
            pipe.multi()
            for incoming in placed:
                self.town.requests.place(pipe, incoming, waiting[incoming.id])
                self.town.queues.enqueue_request(incoming.id, agents[incoming.agent], pipe)

        if placed:
            self.town.redis.transaction(place, self.town.keys.clerk)

    def _check_lease(self) -> None:
        # a clerk that was paused for longer than its lease writes nothing: another one has accepted them
        if not self._lease.check_held():
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
        self, pipe: Pipeline, new: Sequence[IncomingRequest], agents: Mapping[str, Agent], now: datetime
    ) -> None:
        first = self.town.requests.next_sequence(len(new)) if new else 0
        for sequence, incoming in enumerate(new, start=first):
            self.town.requests.add(pipe, incoming, sequence, now)
            if incoming.agent and not incoming.rejection:
                self.town.queues.enqueue_request(incoming.id, agents[incoming.agent], pipe)


def classify(element: bytes, resolve: Callable[[str], Agent]) -> IncomingRequest:
    """The agent and the asker of an element, or why it is rejected or has to wait.

    `resolve` is that of a roster or of a directory.
    """
    if isinstance(element, CutElement):
        what = f"it has {element.length} bytes; the limit is {MAX_ELEMENT_BYTES}"
        rejection = f"{what}: the first {len(element)} are kept, its SHA-1 is {element.digest}"
        return IncomingRequest(f"sha1-{element.digest}", element, rejection=rejection)
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
