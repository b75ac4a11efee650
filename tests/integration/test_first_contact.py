"""What a session gets of the daemon's environment, and what `doctor` says of the agents' programs."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gastown_mail.contracts.settings import Settings
from gastown_mail.lifecycle import preflight
from gastown_mail.plumbing.environment import own_command
from gastown_mail.sessions.process_table import environment
from gastown_mail.status import agent_checks
from gastown_mail.status.agent_checks import check_agents, check_programs
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.model import CheckResult
from gastown_mail.town.town import Town
from tests.support.agents import MAX, MAXINE, RECORDED
from tests.support.stage import Stage
from tests.support.town import write_town
from tests.support.wait import eventually

PASSING = RECORDED.replace(
    f'[agents."{MAX}"]',
    """[programs.recorder]
env_pass = ["SOLVER_*"]
[agents."gastown/crew/max"]
program = "recorder"
env = { SOLVER_MODEL = "my own" }""",
).replace(f'[agents."{MAXINE}"]', f'[agents."{MAXINE}"]\nenv_pass = []')


def test_a_session_gets_what_its_program_needs_of_the_daemons_environment_and_no_other_session_does(
    make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    nasty = "line\n#{pid} $HOME 'x\" ;\\ \x07 ü"
    for name, value in {"SOLVER_KEY": nasty, "SOLVER_MODEL": "the daemon's", "SOLVED": "1"}.items():
        monkeypatch.setenv(name, value)
    stage = Stage(make_town(PASSING))

    session = stage.run(MAX)
    stage.run(MAXINE)

    found = stage.environ(MAX)
    assert (found["SOLVER_KEY"], found["SOLVER_MODEL"]) == (nasty, "my own")
    assert "SOLVED" not in found
    assert not [name for name in stage.environ(MAXINE) if name.startswith("SOLVE")]
    tmux = stage.town.sessions.tmux
    assert "SOLVE" not in tmux.run("show-environment", "-g")
    assert "SOLVER_KEY" in tmux.run("show-environment", "-t", session.id)


def test_a_session_finds_our_command_last_on_its_path_and_in_its_prompt(
    make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    stage = Stage(make_town(RECORDED))

    stage.run(MAX)

    command = own_command()
    assert Path(command).parent == Path(sys.executable).parent
    assert stage.environ()["GASTOWN_MAIL"] == command
    assert stage.environ()["PATH"] == f"/usr/bin:/bin:{Path(command).parent}"
    assert f"run {shlex.quote(command)} send cycle" in stage.wrote("prompt").read_text()


CAT = "cat - {prompt}"


def results(settings: Settings) -> list[CheckResult]:
    collector = StatusCollector(settings)
    try:
        return [*check_agents(collector, collector.report()), *check_programs(collector)]
    finally:
        collector.town.redis.close()


def findings(settings: Settings) -> list[str]:
    return [result.text for result in results(settings) if result.verdict == "finding"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    return tmp_path


LOGIN = f"""
[programs.solver]
label = "Solver"
login_shell = true
env_pass = ["SOLVER_*"]
[agents."one"]
command = "{CAT}"
program = "solver"
[agents."two"]
command = "{CAT}"
program = "solver"
"""


def test_a_login_shell_that_sets_path_anew_is_a_finding_until_it_is_mended(
    home: Path, tmp_path: Path
) -> None:
    settings, file = write_town(tmp_path, LOGIN), home / ".bash_profile"
    file.write_text("echo welcome; export PATH=/usr/bin:/bin\n")

    [text] = findings(settings)

    folder = Path(own_command()).parent
    assert text.startswith(f"one, two: the login shell of Solver does not find gastown-mail, only {folder}/")
    assert f"add {folder} to PATH in ~/.bash_profile" in text
    file.write_text(f'export PATH="/usr/bin:/bin:{folder}"\n')
    assert findings(settings) == []


def test_a_login_shell_that_does_not_come_back_is_a_finding_and_ends(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_checks, "_SHELL_DEADLINE", 0.5)
    (home / ".bash_profile").write_text("sleep 600 &\nwait\n")

    [text] = findings(write_town(tmp_path, LOGIN))

    assert "the login shell of Solver took more than 0.5 s; see what waits in ~/.bash_profile" in text
    eventually(lambda: not [pid for pid in psutil.pids() if f"\0HOME={home}\0".encode() in environment(pid)])


def test_a_command_that_does_not_work_is_a_finding(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GASTOWN_MAIL", "/nowhere/gastown-mail")

    [text] = findings(write_town(tmp_path, LOGIN))

    assert "the login shell of Solver cannot run /nowhere/gastown-mail; install gastown-mail there" in text


def test_what_is_passed_is_named_without_its_value(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLVER_KEY", "sesame")

    said = "\n".join(result.text for result in results(write_town(tmp_path, LOGIN)))

    assert "one, two: Solver gets SOLVER_KEY of the daemon's environment" in said
    assert "sesame" not in said


ASKING = """
[programs.tom]
label = "Cat"
commands = ["cat"]
greedy_options = ["--config"]
[programs.tom.root]
refuses = ["--bold"]
allows = { IN_A_BOX = "1" }
[[programs.tom.first_run]]
asks = "asks for a theme"
answers = [{ file = "~/cat.json", key = ["theme"] }]
"""


def test_questions_of_a_first_run_and_a_lost_prompt_are_findings(home: Path, tmp_path: Path) -> None:
    own = 'command = "cat --config x {prompt}"\nprogram = "tom"\n'
    settings = write_town(tmp_path, ASKING + "".join(f'[agents."{name}"]\n{own}' for name in "abcd"))

    assert findings(settings) == [
        "a, b, c and 1 more: --config of Cat takes the first prompt; put -- before {prompt}",
        "a, b, c and 1 more: Cat asks for a theme: gastown-mail run, then attach, and answer it once",
    ]
    (home / "cat.json").write_text("{")
    assert "it is not known what Cat asks" in "".join(one.text for one in results(settings))
    (home / "cat.json").write_text('{"theme": "dark"}')
    assert len(findings(settings)) == 1


def test_what_a_program_refuses_as_root_is_not_started(
    make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    stage = Stage(make_town(ASKING + '[agents."tom"]\ncommand = "cat --bold {prompt}"\nprogram = "tom"\n'))
    tom = stage.town.roster().agents["tom"]

    with pytest.raises(AssertionError, match="failed: Cat ends at once when root gives it --bold"):
        stage.run("tom")

    assert "gt-tom" not in stage.town.sessions.snapshot()
    assert preflight.start_obstacle(stage.town, tom, {}) == (
        "Cat ends at once when root gives it --bold; run the daemon as another user, "
        'or in a sandbox set IN_A_BOX = "1" in env for tom'
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert preflight.start_obstacle(stage.town, tom, {}) is None
