"""The words of the lifecycle request and their limits. Standard library only.

Their meaning: docs/reference/contract.md#lifecycle-request.
"""

import hashlib
import re
import secrets
import time
from enum import StrEnum

OPERATOR = "operator"
"""The sender when a person asks; never the address of an agent."""

MAX_ELEMENT_BYTES = 128 * 1024
MAX_HANDOFF_BYTES = 64 * 1024
MAX_REASON_CHARS = 1000
ID_PATTERN = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")


class LifecycleAction(StrEnum):
    """What a request does to a session."""

    CYCLE = "cycle"
    """End it and start a successor that gets the handoff."""
    RESTART = "restart"
    """End it and start a fresh successor without a handoff."""
    SHUTDOWN = "shutdown"
    """End it and start nothing."""


class RequestStatus(StrEnum):
    """Where an accepted request stands."""

    RECEIVED = "received"
    """The clerk has recorded it."""
    CARRYING = "carrying"
    """A worker has started on it."""
    DONE = "done"
    """It was carried out."""
    SUPERSEDED = "superseded"
    """Its session was already gone or replaced, or a later request decided."""
    REFUSED = "refused"
    """Unknown agent, not allowed, paused, or no successor could be started."""
    EXPIRED = "expired"
    """Older than `max_request_age`."""
    FAILED = "failed"
    """All attempts have failed."""


class AgentState(StrEnum):
    """What is seen of an agent."""

    READY = "ready"
    """It waits for input, and its input line is empty."""
    BUSY = "busy"
    """It works."""
    ASKS = "asks"
    """It waits for a person's decision."""
    LIMITED = "limited"
    """It has reached a usage limit."""
    STARTING = "starting"
    """It comes up and takes no input yet."""
    DRAFT = "draft"
    """Its input line holds text that was not entered."""
    ENDED = "ended"
    """Its session exists, but its program has ended or is stopped."""
    NONE = "none"
    """It has no session."""
    ELSEWHERE = "elsewhere"
    """It lives on another host."""
    UNKNOWN = "unknown"
    """What is seen has no known meaning, or nothing can be seen."""


DEAD_STATUSES = frozenset({RequestStatus.REFUSED, RequestStatus.EXPIRED, RequestStatus.FAILED})
FINAL_STATUSES = DEAD_STATUSES | {RequestStatus.DONE, RequestStatus.SUPERSEDED}


def parse_action(text: str) -> LifecycleAction:
    """The action of that name in any case. Raises ValueError; nothing is guessed."""
    try:
        return LifecycleAction(text.lower())
    except ValueError:
        raise ValueError(f"{text[:40]!a} is not an action: expected cycle, restart or shutdown") from None


def content_id(element: bytes) -> str:
    """The id of an element that has none: the same bytes are the same request."""
    return "sha-" + hashlib.sha256(element).hexdigest()[:32]


def new_request_id() -> str:
    """A new id; later ids sort later, to the millisecond."""
    return f"{time.time_ns() // 10**6:012x}-{secrets.token_hex(10)}"


def check_handoff(text: str, action: LifecycleAction) -> None:
    """Raise ValueError unless this handoff may go with this action; an empty one may go with any."""
    if text and action is not LifecycleAction.CYCLE:
        raise ValueError(f"a handoff goes only with cycle, not with {action.value}")
    if (size := len(_utf8(text, "handoff"))) > MAX_HANDOFF_BYTES:
        raise ValueError(f"the handoff has {size} bytes; the limit is {MAX_HANDOFF_BYTES}: put it in a file")


def check_id(text: str) -> None:
    """Raise ValueError for text that cannot be the id of a request."""
    if not ID_PATTERN.match(text):
        raise ValueError(f"{text[:80]!a} is not an id: expected 1 to 64 characters from A-Z a-z 0-9 _ -")


def full_context_id(incarnation: str) -> str:
    """The id of the request for a cycle because the context is full: one for each session."""
    return f"full-{incarnation}"[:64]


def check_reason(text: str) -> None:
    """Raise ValueError for a reason that is too long or not text."""
    _utf8(text, "reason")
    if len(text) > MAX_REASON_CHARS:
        raise ValueError(f"the reason has {len(text)} characters; the limit is {MAX_REASON_CHARS}")


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {what} is not valid UTF-8 text") from None
