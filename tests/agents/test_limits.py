"""A usage limit that a real program tells of: no poke is typed before its end, and one when it has come."""

import time
from collections.abc import Callable

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.mail.events import EventName, read_latest
from tests.agents.agent_town import HEARTBEAT, AgentTown
from tests.agents.cases import Case
from tests.agents.known import KNOWN

pytestmark = pytest.mark.timeout(600)

WAIT = 10
"""Seconds after which a limit without a time is taken to have ended."""

DAEMON = f"fresh_after = 0\nheartbeat_interval = 10\npoke_backoff_max = {WAIT}"


def seconds_to_a_full_minute() -> int:
    """Programs tell the end of a limit in minutes; at least ten seconds."""
    left = 60 - int(time.time()) % 60
    return left if left > 10 else left + 60


@pytest.mark.check("limit")
def test_a_usage_limit_is_waited_for(case: Case, start: Callable[..., AgentTown]) -> None:
    agent = start(case.limit, daemon=DAEMON)
    agent.wait_until_told()
    before, seconds = len(agent.received()), seconds_to_a_full_minute() + 1
    assert agent.poke(f"LIMIT {seconds}") == "delivered"
    ends = time.monotonic() + seconds - 2
    waits_itself = (case.name, "limit") in KNOWN
    agent.wait_for(AgentState.BUSY if waits_itself else AgentState.LIMITED)
    held = []
    while HEARTBEAT not in agent.received()[before:]:
        assert time.monotonic() < ends + 120, agent.reading()
        agent.heartbeat()
        if time.monotonic() < ends and agent.seen().state is not AgentState.READY:
            held.append(agent.poke("HEARTBEAT: too early"))
        time.sleep(0.3)

    assert time.monotonic() > ends
    assert len(held) > 5
    assert [one for one in held if not one.startswith("held: ")] == []
    pokes = [
        e.fields
        for e in read_latest(agent.redis, agent.town.keys, 500)
        if e.fields["event"] == EventName.POKE
    ]
    details = [] if waits_itself else ["poked: its usage limit has ended"]
    assert [fields["detail"] for fields in pokes if "detail" in fields] == details
    agent.wait_for(AgentState.READY)
    for _ in range(5):
        agent.heartbeat()
    # a message without an answer may be sent again with the next one
    assert [text for text in agent.received()[before:] if not text.startswith("LIMIT")] == [HEARTBEAT]
