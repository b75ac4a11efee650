"""The only functions that an rq worker runs, each for the town that its worker serves."""

import logging
import time
from contextvars import ContextVar

from gastown_mail.contracts.errors import GastownError, StateUnknown
from gastown_mail.lifecycle import carry_out as requests
from gastown_mail.lifecycle import heartbeat as rounds
from gastown_mail.lifecycle.heartbeat import poke_agent
from gastown_mail.lifecycle.start import start_agent
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.log import log_event
from gastown_mail.town.lease import hold_lease
from gastown_mail.town.town import Town

log = logging.getLogger(__name__)

serving: ContextVar[Town] = ContextVar("serving")
"""The town of the worker that runs the job; `TownWorker` sets it."""


def _town() -> Town:
    try:
        return serving.get()
    except LookupError:
        raise GastownError(
            "this worker serves no town; start it with worker.py or `gastown-mail up`"
        ) from None


def carry_out(request_id: str) -> str:
    """Carry out one request; return its status (see `lifecycle.carry_out`)."""
    return requests.carry_out_request(_town(), request_id)


def start(address: str, why: str, by: str = "") -> str:
    """Start the agent's session unless one lives or it should not run; return the outcome as text."""
    return str(start_agent(_town(), address, why, by))


def poke(address: str, text: str = "") -> str:
    """Poke one agent now, because an operator asked for it; return the outcome as text."""
    return str(poke_agent(_town(), address, text))


def heartbeat() -> str:
    """Run one heartbeat unless one is running; return what it did."""
    town = _town()
    with hold_lease(town.redis, town.keys.heartbeat(town.host), town.host) as lease:
        if not lease:
            return "another heartbeat is running"
        try:
            return f"heartbeat {rounds.run_heartbeat(town).heartbeat_count}"
        except StateUnknown as error:
            record_event(town.redis, town.keys, EventName.HEARTBEAT_FAILED, detail=str(error))
            return f"failed: {error}"


def sweep() -> str:
    """Pick up what dead processes left, unless a sweep is running; return what it did."""
    town = _town()
    with hold_lease(town.redis, town.keys.sweep(town.host), town.host) as lease:
        if not lease:
            return "another sweep is running"
        began = time.monotonic()
        try:
            requeued = rounds.run_sweep(town)
        except StateUnknown as error:
            return f"failed: {error}"
        took = round((time.monotonic() - began) * 1000)
        log_event(log, "swept", level=logging.DEBUG, requeued=requeued, took_ms=took)
        return f"{requeued} requeued"
