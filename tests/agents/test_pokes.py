"""What reaches the model of a real program: each poke once, as it was given."""

from collections.abc import Callable

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from tests.agents.agent_town import AgentTown
from tests.agents.cases import Case, Opened
from tests.agents.known import KNOWN

pytestmark = pytest.mark.timeout(600)

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
        agent.deliver(text)
    agent.wait_for(AgentState.READY)
    agent.wait_until(lambda: len(agent.received()) >= before + 100, "told the last one")

    assert agent.received()[before:] == HUNDRED
    assert not (agent.place.work / "ran").exists()


@pytest.mark.check("5-kb")
def test_a_poke_of_5_kb_arrives_whole(agent: AgentTown) -> None:
    agent.tell(" ".join(f"word{n}" for n in range(660)))


@pytest.mark.check("100-lines")
def test_a_poke_of_100_lines_arrives_whole(agent: AgentTown) -> None:
    agent.tell("\n".join(f"line {n} of 100" for n in range(100)))


@pytest.mark.check("first-characters")
@pytest.mark.parametrize("text", ["1. read the mail", "/touch ran", "!touch ran", "#touch ran", "@touch ran"])
def test_a_first_character_is_no_command(agent: AgentTown, text: str) -> None:
    before = len(agent.received())
    outcome = agent.poke(text)

    if outcome != "delivered":
        sign = repr(text[0])
        assert outcome.startswith(
            f"failed: {agent.profile.label} takes {sign} at the beginning for a command"
        )
        agent.settle()
        assert len(agent.received()) == before
    else:
        agent.wait_until(lambda: agent.received()[before:] == [text], "told the text")
    assert not (agent.place.work / "ran").exists()
