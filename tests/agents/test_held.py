"""Where a real program waits for a person or works: pokes are held, and nothing on its screen changes."""

import time
from collections.abc import Callable

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from tests.agents.agent_town import HEARTBEAT, AgentTown
from tests.agents.cases import Case, Opened, claude_ticks

pytestmark = pytest.mark.timeout(600)

MANY = 50


def is_held_while_busy(agent: AgentTown, text: str) -> None:
    """Poke it with this text and then, until it has answered, with others: none of them arrives, ever."""
    agent.wait_for(AgentState.READY)
    before = len(agent.received())
    assert agent.poke(text) == "delivered"
    agent.wait_for(AgentState.BUSY)

    outcomes, until = [], time.monotonic() + 3
    while time.monotonic() < until:
        outcomes.append(agent.poke("HEARTBEAT: too early"))
    assert len(outcomes) > 5
    assert [outcome for outcome in outcomes if not outcome.startswith("held: ")] == []
    assert "held: it is busy" in outcomes

    agent.tell(f"HEARTBEAT: after {text}")
    assert agent.received()[before:] == [text, f"HEARTBEAT: after {text}"]


@pytest.mark.check("silent")
def test_while_the_model_is_silent(agent: AgentTown) -> None:
    is_held_while_busy(agent, "SILENT 5")


@pytest.mark.check("streaming")
def test_while_the_answer_streams(agent: AgentTown) -> None:
    is_held_while_busy(agent, "SLOW 5")


def nothing_is_answered(agent: AgentTown) -> None:
    """Poke an agent that asks many times: all are held, and the screen stays as it is."""
    agent.wait_for(AgentState.ASKS)
    before = agent.settle(1.5)

    outcomes = {agent.poke() for _ in range(MANY)}

    after = agent.screen()
    assert all(outcome.startswith("held: it asks a question") for outcome in outcomes), outcomes
    assert (after.rows, after.x, after.y) == (before.rows, before.x, before.y)
    assert agent.seen().state is AgentState.ASKS
    assert HEARTBEAT not in agent.received()


@pytest.mark.check("permission")
def test_at_a_permission_question(case: Case, agent: AgentTown) -> None:
    assert agent.poke(case.asks) == "delivered"

    nothing_is_answered(agent)

    assert not (agent.place.work / "allowed").exists()
    agent.press("Enter")
    agent.wait_until((agent.place.work / "allowed").exists, "running what a person has allowed")


@pytest.mark.check("picker")
def test_at_a_picker(case: Case, agent: AgentTown) -> None:
    agent.say(case.picker)

    nothing_is_answered(agent)


@pytest.mark.check("trust")
def test_at_the_question_of_trust(case: Case, start: Callable[..., AgentTown]) -> None:
    assert case.trust is not None

    nothing_is_answered(start(case.trust))


@pytest.mark.check("login")
def test_at_the_login(case: Case, start: Callable[..., AgentTown]) -> None:
    assert case.login is not None

    nothing_is_answered(start(case.login))


def is_left_alone(agent: AgentTown, typed: str) -> None:
    """Type this as a person would and poke: it is held, and the screen stays as it is."""
    agent.type(typed)
    agent.wait_for(AgentState.DRAFT)
    before = agent.settle(1.5)

    outcomes = {agent.poke() for _ in range(10)}

    after = agent.screen()
    assert all(outcome.startswith("held: its input line is not empty") for outcome in outcomes), outcomes
    assert (after.rows, after.x, after.y) == (before.rows, before.x, before.y)
    assert HEARTBEAT not in agent.received()


@pytest.mark.check("draft")
def test_on_a_draft(agent: AgentTown) -> None:
    is_left_alone(agent, "please do not touch ")
    agent.press("C-a")
    is_left_alone(agent, "x")
    agent.press("C-e", "C-u")


@pytest.mark.check("slash-popup")
@pytest.mark.parametrize("typed", ["/", "/mo"])
def test_on_a_slash_popup(agent: AgentTown, typed: str) -> None:
    is_left_alone(agent, typed)


@pytest.mark.check("shell-mode")
@pytest.mark.parametrize("typed", ["!", "!touch ran"])
def test_in_shell_mode(agent: AgentTown, typed: str) -> None:
    is_left_alone(agent, typed)

    assert not (agent.place.work / "ran").exists()


@pytest.mark.check("status-line")
def test_a_status_line_that_ticks_keeps_nobody_from_poking(start: Callable[..., AgentTown]) -> None:
    agent = start(Opened(claude_ticks), daemon="fresh_after = 3")
    agent.wait_for(AgentState.READY)

    def poked() -> bool:
        agent.heartbeat()
        return HEARTBEAT in agent.received()

    agent.wait_until(poked, "poked by a heartbeat", deadline=30)
