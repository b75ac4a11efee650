"""The preflight before a session is ended, and the first prompt of its successor."""

import shlex
from pathlib import Path

import pytest

from gastown_mail.contracts.address import Agent
from gastown_mail.lifecycle.preflight import preflight, search_path
from gastown_mail.lifecycle.start import StartOutcome, StartResult, first_prompt, new_incarnation


def an_agent(work_dir: Path, command: str, **env: str) -> Agent:
    return Agent(
        address="gastown/crew/max", role="crew", rig="gastown", name="max", session="gt-gastown-crew-max",
        work_dir=work_dir, command=command, poke=None, keep_running=False, stop_grace=5.0, env=env, host="h",
    )  # fmt: skip


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A work dir with `bin/agent` in it, in a town with `tools/max-agent`."""
    program(tmp_path / "town dir" / "tools" / "max-agent")
    folder = tmp_path / "town dir" / "work"
    program(folder / "bin" / "agent")
    (folder / "notes").write_text("not a program")
    return folder


def fault(work_dir: Path, command: str, **env: str) -> str | None:
    agent = an_agent(work_dir, command, **env)
    return preflight(agent, work_dir.parent, search_path(agent, {"PATH": "/usr/bin:/bin"}))


def test_a_work_dir_that_cannot_be_looked_at_is_a_fault_in_words(tmp_path: Path) -> None:
    assert "cannot be used (File name too long)" in str(fault(tmp_path / ("x" * 300), "sh"))


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'exit 1'",
        "/bin/sh",
        "bin/agent {prompt}",
        "./bin/agent --name={name}",
        "{town}/tools/{name}-agent {prompt}",
        "GREETING=hello OTHER='a b' sh",
        "env X=1 sh",
        '"sh" -c true',
        " \n sh -c true\n",
    ],
)
def test_an_existing_program_passes_preflight(work_dir: Path, command: str) -> None:
    assert fault(work_dir, command) is None


@pytest.mark.parametrize(
    "command",
    [
        "no-such-program {prompt}",
        "/bin/no-such-program",
        "bin/other",
        "./notes",
        "./bin",
        "{town}/tools/other-agent {prompt}",
        "GREETING=hello no-such-program",
        "'no such program' x",
        "agent",
    ],
)
def test_a_program_that_is_missing_is_named_with_a_remedy(work_dir: Path, command: str) -> None:
    said = fault(work_dir, command)

    assert said is not None
    named = next(word for word in shlex.split(command) if "=" not in word).rpartition("}")[2]
    assert named in said
    assert "gastown/crew/max" in said


@pytest.mark.parametrize(
    "command",
    [
        "cd sub && no-such-program",
        "exec no-such-program",
        "$AGENT {prompt}",
        "~/bin/agent {prompt}",
        "unset CLAUDECODE; no-such-program",
        "ulimit -v 1000; no-such-program",
        "(no-such-program)",
        "while true; do no-such-program; done",
        "sh -c 'quotes that do not close",
        "X=1",
    ],
)
def test_preflight_does_not_judge_shell_commands(work_dir: Path, command: str) -> None:
    assert fault(work_dir, command) is None


def test_preflight_searches_the_agents_own_path(work_dir: Path) -> None:
    own = str(work_dir / "bin")

    assert fault(work_dir, "agent {prompt}", PATH=own) is None
    assert fault(work_dir, "sh", PATH=own) is not None


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_an_invalid_work_dir_is_named_with_a_remedy(work_dir: Path, kind: str) -> None:
    place = work_dir / ("notes" if kind == "file" else "nowhere")

    said = fault(place, "sh")

    assert said is not None
    assert str(place) in said
    assert "work_dir" in said


def test_the_first_prompt_names_the_agent_the_reason_the_handoff_and_the_command(tmp_path: Path) -> None:
    agent = an_agent(tmp_path, "sh")
    handoff = tmp_path / "gt-gastown-crew-max.md"

    command = "/opt/my tools/gastown-mail"
    after_a_cycle = first_prompt(agent, "my-town", "you asked for a cycle (tired)", handoff, command)
    after_a_restart = first_prompt(agent, "my-town", "you asked for a restart", None, "")

    for word in ("gastown/crew/max", "my-town", "tired", str(handoff)):
        assert word in after_a_cycle
    assert "handoff" not in after_a_restart
    assert after_a_cycle.endswith("run '/opt/my tools/gastown-mail' send cycle (or restart, or shutdown).")
    assert after_a_restart.endswith("run gastown-mail send cycle (or restart, or shutdown).")


def test_no_two_incarnations_are_alike() -> None:
    tokens = {new_incarnation() for _ in range(1000)}

    assert len(tokens) == 1000
    assert min(map(len, tokens)) >= 32, "too many bits to guess"


@pytest.mark.parametrize("result", StartResult)
@pytest.mark.parametrize("detail", ["", "gt-max, pid 12: alive"])
def test_an_outcome_is_read_back_from_its_text(result: StartResult, detail: str) -> None:
    outcome = StartOutcome(result, detail)

    assert StartOutcome.parse(str(outcome)) == outcome


def test_any_other_text_is_a_failure() -> None:
    assert StartOutcome.parse("who knows") == StartOutcome(StartResult.FAILED, "who knows")
