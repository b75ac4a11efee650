"""The end of a real program is seen: its exit, its crash, and when it is stopped."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.sessions import process_table
from gastown_mail.town.observed import Observation
from tests.agents.agent_town import AgentTown
from tests.agents.cases import Case

pytestmark = pytest.mark.timeout(600)


def in_front(agent: AgentTown) -> list[psutil.Process]:
    """The processes in front on its terminal."""
    group = process_table.foreground_group(agent.live.pid)
    root = psutil.Process(agent.live.pid)
    return [one for one in (root, *root.children(recursive=True)) if os.getpgid(one.pid) == group]


def is_ended_with(status: int) -> Callable[[Observation], bool]:
    return lambda seen: seen.in_words().startswith(f"ended: exit {status}")


@pytest.mark.check("exit")
def test_an_exit_is_seen(case: Case, agent: AgentTown) -> None:
    for number, (way, status) in enumerate(case.quits.items()):
        if number:
            agent.start_anew()
        if way.startswith("/"):
            agent.say(way)
        else:
            for key in way.split():
                agent.press(key)
                agent.settle(rest=0.4)

        agent.wait_until_seen(is_ended_with(status))
        assert agent.poke() == "held: its program has ended"


@pytest.mark.check("crash")
def test_a_crash_is_seen(agent: AgentTown) -> None:
    max(in_front(agent), key=lambda process: process.memory_info().rss).kill()

    agent.wait_until_seen(lambda seen: seen.state is AgentState.ENDED)
    assert agent.poke() == "held: its program has ended"


@pytest.mark.check("stopped")
def test_a_stopped_program_is_seen(case: Case, agent: AgentTown) -> None:
    agent.press("C-z")
    agent.settle()
    agent.wait_until_seen(lambda seen: seen.state is case.suspended)
    if case.suspended is not AgentState.ENDED:
        for process in in_front(agent)[1:]:  # tmux continues what it has started itself
            process.send_signal(signal.SIGSTOP)

    agent.wait_until_seen(lambda seen: seen.state is AgentState.ENDED)
    outcome = agent.poke()
    assert outcome.startswith("held: ")
    assert "stopped; " in outcome
    agent.start_anew()
