"""A usage limit that a real program tells of: no poke is typed before its end, and one when it has come."""

import time
from collections.abc import Callable

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.mail.events import EventName, read_latest
from tests.agents.agent_town import HEARTBEAT, AgentTown
from tests.agents.cases import Case

pytestmark = pytest.mark.timeout(300)

WAIT = 10
"""Seconds after which a limit without a time is taken to have ended."""


def seconds_to_a_full_minute() -> int:
    """Programs tell the end of a limit in minutes; at least ten seconds."""
    left = 60 - int(time.time()) % 60
    return left if left > 10 else left + 60


@pytest.mark.check("limit")
def test_a_usage_limit_is_waited_for(case: Case, start: Callable[..., AgentTown]) -> None:
    agent = start(case.limit, daemon=f"fresh_after = 0\npoke_backoff_max = {WAIT}")
    agent.wait_for(AgentState.READY)
    before = len(agent.received())
    limit = f"LIMIT {seconds_to_a_full_minute() + 1}"
    assert agent.poke(limit) == "delivered"
    agent.wait_for(AgentState.LIMITED, deadline=90)

    held = []
    while agent.heartbeat() and HEARTBEAT not in agent.received()[before:]:
        seen = agent.seen()
        if seen.state is AgentState.LIMITED and seen.until and time.time() < seen.until.timestamp():
            held.append(agent.poke("HEARTBEAT: too early"))
        time.sleep(0.3)

    assert len(held) > 5
    assert all(one.startswith("held: it has reached a usage limit") for one in held), set(held)
    pokes = [e for e in read_latest(agent.redis, agent.town.keys, 100) if e.fields.get("detail")]
    assert [e.fields["detail"] for e in pokes if e.fields["event"] == EventName.POKE] == [
        "poked: its usage limit has ended"
    ]
    agent.wait_for(AgentState.READY)
    for _ in range(5):
        agent.heartbeat()
    assert agent.received()[before:] == [limit, HEARTBEAT]
