"""What reaches the model of a real program: each poke once, as it was given."""

from collections.abc import Callable

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from tests.agents.agent_town import AgentTown
from tests.agents.cases import Case, Opened
from tests.agents.known import KNOWN

pytestmark = pytest.mark.timeout(240)

SPECIAL = (
    """it's "quoted", $(touch ran) `touch ran` $HOME ${x} %s \\n \\ ; | & > ran < ( ) * ? [a] {b} # ~ !"""
    " grüße 漢字 🙂"
)
PARAGRAPH = f"{SPECIAL}\nsecond line: {SPECIAL}\n"
HUNDRED = [f"poke {n}: {SPECIAL}" for n in range(100)]


@pytest.mark.check("first-prompt")
def test_a_long_first_prompt_arrives_whole(case: Case, start: Callable[..., AgentTown]) -> None:
    why = "of\n" + PARAGRAPH * (4096 // len(PARAGRAPH.encode()) + 1)
    agent = start(Opened(), why=why)
    agent.wait_for(AgentState.READY)

    if (case.name, "first-prompt") in KNOWN:
        assert agent.received() == []
    else:
        agent.wait_until(agent.received, "told its first prompt")
        assert agent.received() == [agent.first_prompt(why)]
    assert not (agent.place.work / "ran").exists()


@pytest.mark.check("100-pokes")
def test_a_hundred_pokes_arrive_once_each(agent: AgentTown) -> None:
    before = len(agent.received())
    for text in HUNDRED:
        agent.wait_for(AgentState.READY)
        assert agent.poke(text) == "delivered"
    agent.wait_for(AgentState.READY)
    agent.wait_until(lambda: len(agent.received()) >= before + 100, "told the last one")

    assert agent.received()[before:] == HUNDRED
    assert not (agent.place.work / "ran").exists()


@pytest.mark.check("5-kb")
def test_a_poke_of_5_kb_arrives_whole(case: Case, agent: AgentTown) -> None:
    tell(case, agent, " ".join(f"word{n}" for n in range(630)))


@pytest.mark.check("100-lines")
def test_a_poke_of_100_lines_arrives_whole(case: Case, agent: AgentTown) -> None:
    tell(case, agent, "\n".join(f"line {n} of 100" for n in range(100)))


def tell(case: Case, agent: AgentTown, text: str) -> None:
    """Tell it a text that a program may show as `[Pasted …]`; opencode puts a blank behind that."""
    agent.tell(text, text + " " if (case.name, "5-kb") in KNOWN else text)


@pytest.mark.check("first-characters")
@pytest.mark.parametrize("text", ["1. read the mail", "/touch ran", "!touch ran", "#touch ran", "@touch ran"])
def test_a_first_character_is_no_command(agent: AgentTown, text: str) -> None:
    before = len(agent.received())
    outcome = agent.poke(text)

    if text.startswith(agent.profile.input.acts):
        assert outcome.startswith("failed: ")
        assert f"takes a text that begins with {text[0]} for a command; begin it otherwise" in outcome
        assert agent.reading().state is AgentState.READY
        assert len(agent.received()) == before
    else:
        assert outcome == "delivered"
        agent.wait_until(lambda: agent.received()[before:] == [text], "told the text")
    assert not (agent.place.work / "ran").exists()
