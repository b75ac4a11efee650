"""What `status`, `agents`, `explain` and `doctor` say of agents on a real tmux, state by state."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gastown_mail.cli.status import format_agents, format_explanation
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.lifecycle.heartbeat import run_sweep
from gastown_mail.sessions.process_table import zombie_status
from gastown_mail.status.checks import run_checks
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.explain import explain_agent
from gastown_mail.status.model import AgentStatus, Explanation
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town
from tests.integration.tmux_world import WHEN_TOLD
from tests.support.stage import Stage
from tests.support.wait import eventually


def shows(*lines: str) -> str:
    """A command that shows these lines, with the cursor behind the last one, and waits."""
    program = f"import sys; print({chr(10).join(lines)!r}, end='', flush=True); sys.stdin.read()"
    return shlex.join(["exec", sys.executable, "-S", "-c", program])


WAITS = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"

COMMANDS = {
    "loop": ("other", "sh -c 'while read line; do echo got $line; done'"),
    "asker": ("other", shows("There is a file already.", "Overwrite? [y/N] ")),
    "drafter": ("fake", shows("> half a message")),
    "limited": ("fake", shows("You have reached your limit, try again in 2 hours", "", "> ")),
    "knower": ("fake", shows("12% left", "> ")),
    "puzzler": ("fake", shows("Welcome! Pick a colour")),
    "crasher": ("other", f"{WHEN_TOLD}; echo out of paper; exit 3"),
    "sleeper": ("other", shlex.join([sys.executable, "-S", "-c", WAITS]) + "; true"),
    "shell": ("other", "exec sh -i"),
}
"""By the agent's name, its profile and its command."""

PROFILE = r"""
[programs.fake]
label = "Fake"
[programs.fake.input]
sign = '^> '
[programs.fake.context]
left = '(\d+)% left'
[[programs.fake.rules]]
state = "limited"
above = 'reached your limit'
"""


@pytest.fixture
def stage(make_town: Callable[..., Town], redis_url: str) -> Stage:
    """A town with these agents, of which none is started yet."""
    agents = "".join(
        f"[agents.\"rig/crew/{name}\"]\nprogram = '{program}'\ncommand = '''{command}'''\n"
        for name, (program, command) in COMMANDS.items()
    )
    daemon = f'[daemon]\nredis_url = "{redis_url}"\nrestart_backoff = 0\nasks_after = 1\n'
    crew = '[roles.crew]\nwork_dir = "work/{name}"\nstop_grace = 1\nkeep_running = true\npoke = "go on"\n'
    return Stage(make_town(daemon + crew + PROFILE + agents))


def address(name: str) -> str:
    return f"rig/crew/{name}"


def look(stage: Stage, name: str) -> AgentStatus:
    rows = StatusCollector(stage.settings).agents(stage.town.roster())
    return next(row for row in rows if row.agent == address(name))


def comes(stage: Stage, name: str, state: AgentState) -> AgentStatus:
    """Wait until the agent is in this state; return its status."""

    def seen() -> AgentStatus | None:
        row = look(stage, name)
        return row if row.state is state else None

    return eventually(seen, step=0.2)  # type: ignore[return-value]


def started(stage: Stage, name: str, state: AgentState) -> AgentStatus:
    stage.run(address(name))
    return comes(stage, name, state)


def explained(stage: Stage, name: str) -> Explanation:
    return explain_agent(StatusCollector(stage.settings), stage.town.roster().resolve(address(name)))


def steps(stage: Stage, name: str) -> str:
    """What `explain` advises; in these tests no daemon runs, which it says first."""
    return explained(stage, name).next_steps[-1]


def problems(stage: Stage, name: str) -> list[str]:
    """What `status` says is wrong with the agent; `doctor` must say the same."""
    report = StatusCollector(stage.settings).report()
    found = [f"{one.reason}: {one.remedy}" for one in report.troubles if one.reason.startswith(address(name))]
    texts = [result.text for result in run_checks(stage.settings) if result.verdict == "finding"]
    beginnings = [problem.partition(" for ")[0] for problem in found]
    assert all(any(text.startswith(begin) for text in texts) for begin in beginnings)
    return found


def noticed_a_minute_ago(stage: Stage, name: str) -> None:
    """Have the daemon notice the state, and the record say that this was a minute ago."""
    run_sweep(stage.town)
    stage.town.agents.write(address(name), AgentRecord(state_since=datetime.now(UTC) - timedelta(seconds=61)))


def test_a_question_is_shown_and_after_a_while_is_a_problem(stage: Stage) -> None:
    asks = started(stage, "asker", AgentState.ASKS)
    assert (asks.observed, asks.state_line, asks.program) == ("alive", "Overwrite? [y/N]", "other")
    noticed_a_minute_ago(stage, "asker")

    table = format_agents([look(stage, "asker")])
    [problem] = problems(stage, "asker")

    assert "asks 1m " in table
    assert table.endswith("Overwrite? [y/N]")
    assert problem.startswith("rig/crew/asker has been asking for 1m1s: Overwrite? [y/N]: ")
    assert "gastown-mail attach rig/crew/asker and answer" in problem
    assert "gastown-mail attach rig/crew/asker and answer" in steps(stage, "asker")
    assert "asks for 1m" in " ".join(format_explanation(explained(stage, "asker")))


def test_the_question_of_a_paused_agent_is_no_problem(stage: Stage) -> None:
    started(stage, "asker", AgentState.ASKS)
    noticed_a_minute_ago(stage, "asker")
    stage.town.desired.pause(address("asker"))

    assert problems(stage, "asker") == []


def test_a_ready_agent_is_ready_since_its_last_activity(stage: Stage) -> None:
    ready = started(stage, "loop", AgentState.READY)
    run_sweep(stage.town)

    assert (ready.observed, ready.state_line, ready.state_since) == ("alive", None, ready.active)
    assert look(stage, "loop").state_since == ready.state_since, "it is kept"
    assert "pokes it" in steps(stage, "loop")


def test_the_text_in_an_input_line_is_shown(stage: Stage) -> None:
    draft = started(stage, "drafter", AgentState.DRAFT)
    noticed_a_minute_ago(stage, "drafter")

    assert (draft.state_line, draft.program) == ("half a message", "fake")
    assert "press Enter or clear the line" in steps(stage, "drafter")
    assert problems(stage, "drafter") == []


def test_a_usage_limit_is_shown_with_its_end(stage: Stage) -> None:
    started(stage, "limited", AgentState.LIMITED)
    run_sweep(stage.town)
    limited = look(stage, "limited")

    later = limited.limited_until
    assert later
    assert timedelta(hours=1) < later - datetime.now(UTC) < timedelta(hours=3)
    assert limited.state_line == "You have reached your limit, try again in 2 hours"
    assert "until " in format_agents([limited])
    assert look(stage, "limited").limited_until == later, "it is not counted anew"
    assert "the first heartbeat after" in steps(stage, "limited")
    assert problems(stage, "limited") == []


def test_the_fullness_of_a_context_is_shown(stage: Stage) -> None:
    knows = started(stage, "knower", AgentState.READY)

    assert knows.context == 88
    assert format_agents([knows]).endswith("context 88 %")


def test_a_screen_that_is_not_understood_is_a_problem_of_an_agent_with_a_poke(stage: Stage) -> None:
    puzzles = started(stage, "puzzler", AgentState.UNKNOWN)
    assert puzzles.state_line == "Welcome! Pick a colour"
    noticed_a_minute_ago(stage, "puzzler")

    [problem] = problems(stage, "puzzler")

    assert "has shown a screen without a known meaning for 1m1s: Welcome! Pick a colour" in problem
    assert "gastown-mail programs fake tells how its screen is read" in steps(stage, "puzzler")


def test_a_program_that_ended_is_shown_with_its_exit_status_and_last_line(stage: Stage) -> None:
    stage.run(address("crasher"))
    stage.work("go", address("crasher")).touch()

    ended = comes(stage, "crasher", AgentState.ENDED)

    assert (ended.observed, ended.exit_status, ended.state_line) == ("ended", 3, "exit 3: out of paper")
    assert "exit 3: out of paper" in format_agents([ended])
    assert ended.is_down


def test_a_stopped_program_is_not_taken_for_a_ready_one(stage: Stage) -> None:
    started(stage, "sleeper", AgentState.READY)
    pid = int(stage.wrote("pid", address("sleeper")).read_text())

    os.kill(pid, signal.SIGSTOP)
    stopped = comes(stage, "sleeper", AgentState.ENDED)
    noticed_a_minute_ago(stage, "sleeper")
    [problem] = problems(stage, "sleeper")
    os.kill(pid, signal.SIGCONT)

    assert stopped.observed == "alive"
    assert (stopped.state_line or "").endswith(f"is stopped; kill -CONT {pid} continues it")
    assert "must run and has not worked for 1m1s" in problem
    assert "gastown-mail send restart --agent operator --to rig/crew/sleeper starts it anew" in problem
    assert comes(stage, "sleeper", AgentState.READY)


def test_a_shell_in_front_means_that_the_program_has_ended(stage: Stage) -> None:
    shell = started(stage, "shell", AgentState.ENDED)
    noticed_a_minute_ago(stage, "shell")

    assert "a bare shell (sh) is in front" in (shell.state_line or "")
    assert "must run and has not worked" in problems(stage, "shell")[0]
    stage.town.desired.set(address("shell"), Desired.STOPPED)
    assert problems(stage, "shell") == []


def test_without_an_answer_of_tmux_nothing_is_known_of_an_agent(stage: Stage) -> None:
    started(stage, "asker", AgentState.ASKS)

    collector = StatusCollector(stage.settings)
    collector.town.sessions.tmux.environ["PATH"] = "/nowhere"
    rows = collector.agents(stage.town.roster())

    assert {(row.observed, row.state, row.state_line) for row in rows} == {
        ("unknown", AgentState.UNKNOWN, None)
    }


@pytest.mark.parametrize(("ends", "status"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_the_exit_status_of_a_zombie_is_that_of_a_shell(ends: str, status: int) -> None:
    with subprocess.Popen(["sh", "-c", ends]) as process:
        assert eventually(lambda: zombie_status(process.pid)) == status
    assert zombie_status(process.pid) is None
