"""The hook as a program runs it: its command in a shell, with a real Valkey and a real clerk."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gastown_mail.cli.hook_files import PROGRAMS
from gastown_mail.town.town import Town
from tests.support.parts import accept_inbox
from tests.support.processes import clean_environ
from tests.support.wait import DEADLINE

AUTO = {"hook_event_name": "PreCompact", "trigger": "auto", "transcript_path": "/c/d.jsonl"}


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`gastown-mail` under a path of its own."""
    path = tmp_path / "bin dir" / "gastown-mail"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m gastown_mail "$@"\n')
    path.chmod(0o755)
    return path


def inside(town: Town, command: Path, incarnation: str = "t0ken") -> dict[str, str]:
    return clean_environ(
        GASTOWN_REDIS_URL=town.redis_url,
        GASTOWN_TOWN_NAME=town.keys.town,
        GASTOWN_AGENT="gastown/crew/max",
        GASTOWN_INCARNATION=incarnation,
        GASTOWN_MAIL=str(command),
    )


def fire(
    program: str, environ: dict[str, str], given: dict[str, Any] = AUTO, shell: str = "sh"
) -> subprocess.CompletedProcess[str]:
    """Run the hook as the program does; whatever happens, the program must be able to go on."""
    done = subprocess.run(
        [shell, "-c", PROGRAMS[program].handler["command"]],
        input=json.dumps(given),
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done


def inbox(town: Town) -> list[dict[str, Any]]:
    return [json.loads(element) for element in town.redis.lrange(town.keys.inbox, 0, -1)]


@pytest.mark.parametrize("program", ["claude", "codex"])
def test_a_full_context_asks_for_a_cycle_in_silence(town: Town, command: Path, program: str) -> None:
    done = fire(program, inside(town, command))

    assert (done.stdout, done.stderr) == ("", "")
    (element,) = inbox(town)
    del element["timestamp"]
    assert element == {
        "from": "gastown/crew/max", "action": "cycle", "id": "full-t0ken", "incarnation": "t0ken",
        "reason": "the context is full; the conversation is in /c/d.jsonl",
    }  # fmt: skip


def test_a_session_asks_once_however_often_the_hook_runs(town: Town, command: Path) -> None:
    for incarnation in ("one", "one", "two"):
        fire("claude", inside(town, command, incarnation))
    accept_inbox(town)
    fire("claude", inside(town, command, "one"))
    accept_inbox(town)

    assert sorted(town.requests.all_ids()) == ["full-one", "full-two"]


def test_a_user_may_choose_the_same_id(town: Town, command: Path) -> None:
    environ = inside(town, command)
    for action in ("cycle", "restart"):
        words = [str(command), "send", action, "--id", "mine-1"]
        assert subprocess.check_output(words, env=environ, text=True, timeout=DEADLINE) == "mine-1\n"
    accept_inbox(town)

    assert list(town.requests.all_ids()) == ["mine-1"]
    done = subprocess.run(
        [str(command), "send", "cycle", "--id", "a b"], env=environ, capture_output=True, text=True
    )
    assert (done.returncode, "is not an id" in done.stderr) == (2, True)
    assert inbox(town) == []


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_outside_a_session_the_hook_does_nothing(town: Town, command: Path, shell: str) -> None:
    environ = {**inside(town, command), "GASTOWN_INCARNATION": "", "GASTOWN_MAIL": "/bin/false"}

    done = fire("codex", environ, shell=shell)

    assert (done.stdout, done.stderr, inbox(town)) == ("", "", [])


def test_without_the_variable_the_command_on_the_path_is_used(town: Town, command: Path) -> None:
    environ = inside(town, command)
    environ["PATH"] = f"{command.parent}:{environ['PATH']}"
    del environ["GASTOWN_MAIL"]

    fire("claude", environ)

    assert [element["id"] for element in inbox(town)] == ["full-t0ken"]


def test_a_command_that_is_gone_harms_nothing(town: Town, command: Path) -> None:
    done = fire("claude", inside(town, Path("/nowhere/gastown-mail")))

    assert done.stdout == ""
    assert inbox(town) == []


@pytest.mark.parametrize("program", ["codex", "gemini"])
def test_an_error_is_a_message_for_the_user(tmp_path: Path, town: Town, command: Path, program: str) -> None:
    environ = {**inside(town, command), "GASTOWN_REDIS_URL": "unix:///nowhere/redis.sock"}
    chat = tmp_path / "chat.jsonl"
    chat.write_text(json.dumps({"type": "gemini", "tokens": {"input": 600_000}}))

    done = fire(program, environ, {**AUTO, "transcript_path": str(chat)})

    assert json.loads(done.stdout)["systemMessage"].startswith("gastown-mail: the request was not accepted")


def test_claude_gets_no_error_on_stdout_where_it_would_be_an_instruction(town: Town, command: Path) -> None:
    done = fire("claude", {**inside(town, command), "GASTOWN_REDIS_URL": "unix:///nowhere/redis.sock"})

    assert done.stdout == ""
    assert "the request was not accepted" in done.stderr


def test_in_codex_shared_server_no_other_session_is_asked_for(
    tmp_path: Path, town: Town, command: Path
) -> None:
    server = tmp_path / "codex"
    server.symlink_to("/bin/sh")
    script = f"cd / && {PROGRAMS['codex'].handler['command']}; exit $?"
    (tmp_path / "app-server").write_text(script)

    done = subprocess.run(
        [str(server), "app-server", "--managed-daemon"],
        cwd=tmp_path,
        input=json.dumps(AUTO),
        env=inside(town, command),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )

    assert done.returncode == 0
    assert "codex --no-daemon" in json.loads(done.stdout)["systemMessage"]
    assert inbox(town) == []


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False)])
def test_at_a_terminal_the_user_is_asked(tmp_path: Path, answer: str, written: bool) -> None:
    mine, theirs = pty.openpty()
    environ = clean_environ(HOME=str(tmp_path), CLAUDE_CONFIG_DIR="")
    with subprocess.Popen(
        [sys.executable, "-m", "gastown_mail", "hooks", "install", "claude"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, text=True,
    ) as process:  # fmt: skip
        os.write(mine, f"{answer}\n".encode())
        said, _ = process.communicate(timeout=DEADLINE)
    os.close(mine)
    os.close(theirs)

    assert "Write this?" in said
    assert (tmp_path / ".claude/settings.json").exists() is written
    assert process.returncode == (0 if written else 1)
