"""What a profile tells of a command before it runs."""

import json
from pathlib import Path

import pytest

from gastown_mail.contracts.address import DEFAULT_COMMAND, Agent
from gastown_mail.contracts.profile import Profile
from gastown_mail.plumbing.environment import passed_environment
from gastown_mail.programs.first_contact import (
    UnreadableFile,
    open_questions,
    prompt_taken_by,
    root_refusal,
)
from gastown_mail.programs.library import built_in

PROFILE = Profile.model_validate(
    {
        "label": "Solver",
        "commands": ["solve"],
        "greedy_options": ["--files", "-f"],
        "root": {"refuses": ["--bold", "--mode=bold"], "allows": {"IN_A_BOX": "1"}},
        "first_run": [
            {
                "asks": "asks for a theme",
                "answers": [
                    {"file": "${SOLVER_HOME:-~}/.solver.json", "key": ["theme"]},
                    {"variable": "SOLVER_THEME"},
                ],
            },
            {
                "asks": "asks for trust",
                "options": ["--bold"],
                "beside": [".solved-here", ".solver-marks"],
                "answers": [
                    {"file": "~/trust.toml", "key": ["folders", "{work_dir}", "level"]},
                    {"file": "~/trust.toml", "key": ["asks"], "value": False},
                ],
            },
            {"asks": "asks for the key", "variables": ["KEY"], "answers": [{"file": "{work_dir}/key"}]},
        ],
    }
)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("solve --bold {prompt}", "--bold"),
        ("solve --mode=bold", "--mode=bold"),
        ("exec /opt/solve -x --mode bold {prompt}", "--mode=bold"),
        ("solve --mode shy {prompt}", ""),
        ("IN_A_BOX=1 solve --bold {prompt}", ""),
        ("env IN_A_BOX=1 solve --bold", ""),
        ("sudo -u max solve --bold", ""),
        ("sh -c 'solve --bold'", ""),
    ],
)
def test_what_root_may_not_do(command: str, option: str) -> None:
    assert root_refusal(command, PROFILE, {"IN_A_BOX": "0"}) == option
    assert root_refusal(command, PROFILE, {"IN_A_BOX": "1"}) == ""


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("solve --files a b {prompt}", "--files"),
        ("solve -f {prompt}", "-f"),
        ("solve --files a -- {prompt}", ""),
        ("solve --files a --bold {prompt}", ""),
        ("solve --files=a {prompt}", ""),
        ("solve {prompt} --files a", ""),
        ("solve --files a", ""),
        ("solve 'unclosed --files a {prompt}", "--files"),
    ],
)
def test_an_option_that_takes_the_prompt_is_named(command: str, option: str) -> None:
    assert prompt_taken_by(command, PROFILE) == option


def asked(home: Path, command: str = "solve", **environ: str) -> list[str]:
    """What the program would ask in `home`/town/work."""
    work_dir = home / "town" / "work"
    work_dir.mkdir(parents=True, exist_ok=True)
    agent = Agent(
        address="a", role="agent", rig="", name="a", session="a", work_dir=work_dir, command=command,
        poke=None, keep_running=False, stop_grace=1.0, env={}, host="h",
    )  # fmt: skip
    found = open_questions(agent, PROFILE, {"HOME": str(home), **environ})
    return [str(one) if isinstance(one, UnreadableFile) else one.asks.rpartition(" ")[2] for one in found]


def test_a_question_is_open_until_a_file_or_a_variable_answers_it(tmp_path: Path) -> None:
    assert asked(tmp_path) == ["theme"]
    assert asked(tmp_path, SOLVER_THEME="dark") == []
    (tmp_path / ".solver.json").write_text('{"theme": false}')
    assert asked(tmp_path) == ["theme"]
    (tmp_path / ".solver.json").write_text('{"theme": "dark"}')
    assert asked(tmp_path) == []
    assert asked(tmp_path, SOLVER_HOME=str(tmp_path / "other")) == ["theme"]


def test_a_question_is_asked_only_with_its_option_its_variable_and_its_file(tmp_path: Path) -> None:
    themed = {"SOLVER_THEME": "dark"}
    assert asked(tmp_path, "solve --bold", **themed) == []
    (tmp_path / "town" / ".solved-here").mkdir()
    assert asked(tmp_path, "solve --bold", **themed) == ["trust"]
    assert asked(tmp_path, "solve", **themed) == []
    assert asked(tmp_path, "solve", **themed, KEY="k") == ["key"]
    (tmp_path / "town" / "work" / "key").touch()
    assert asked(tmp_path, "solve", **themed, KEY="k") == []


@pytest.mark.parametrize("folder", ["town/work", "town", ""])
def test_an_answer_for_a_folder_above_counts(tmp_path: Path, folder: str) -> None:
    (tmp_path / ".solved-here").mkdir()
    trusted = json.dumps(str(tmp_path / folder))
    (tmp_path / "trust.toml").write_text(f'[folders.{trusted}]\nlevel = "trusted"\n')

    assert asked(tmp_path, "solve --bold", SOLVER_THEME="dark") == []


def test_an_answer_can_be_a_no(tmp_path: Path) -> None:
    (tmp_path / ".solved-here").mkdir()
    for text, questions in (("asks = true", ["trust"]), ("asks = false", [])):
        (tmp_path / "trust.toml").write_text(text)
        assert asked(tmp_path, "solve --bold", SOLVER_THEME="dark") == questions


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_a_file_that_makes_no_sense_is_named_or_answers_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".solver.json").write_text(text)

    [said] = asked(tmp_path)

    assert said == "theme" or said.startswith(f"{tmp_path}/.solver.json cannot be read")


OF_CHILDREN = """
    CLAUDECODE CLAUDE_CODE_CHILD_SESSION CLAUDE_CODE_ENTRYPOINT CLAUDE_CODE_EXECPATH CLAUDE_CODE_SESSION_ID
    CLAUDE_CODE_SSE_PORT CLAUDE_EFFORT AI_AGENT CODEX_CI CODEX_MANAGED_BY_NPM CODEX_SESSION_ID CODEX_THREAD_ID
    CODEX_TOOL_CALL_ID CODEX_SANDBOX GEMINI_CLI GEMINI_CLI_NO_RELAUNCH GEMINI_CLI_IDE_SERVER_PORT QWEN_CODE
    QWEN_CODE_NO_RELAUNCH AGENT OPENCODE OPENCODE_PID
""".split()
"""What the programs set for the commands that they run: a daemon that an agent started has them."""


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "opencode", "aider", "qwen"])
def test_a_program_gets_proxies_and_nothing_that_a_program_set_for_its_commands(name: str) -> None:
    proxies = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"]
    daemons = dict.fromkeys([*OF_CHILDREN, *proxies, "SSH_AUTH_SOCK", "GITHUB_TOKEN"], "x")

    assert sorted(passed_environment(daemons, built_in()[name].env_pass, "")) == sorted(proxies)


def test_the_default_command_is_not_run_by_root() -> None:
    profile = built_in()["claude"]

    assert root_refusal(DEFAULT_COMMAND, profile, {}) == "--dangerously-skip-permissions"
    assert root_refusal(DEFAULT_COMMAND, profile, {"IS_SANDBOX": "1"}) == ""
    assert prompt_taken_by("claude --mcp-config f {prompt}", profile) == "--mcp-config"
    assert prompt_taken_by(DEFAULT_COMMAND, profile) == ""
